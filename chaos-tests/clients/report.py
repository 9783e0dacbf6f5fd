"""Reads a report's mail from standard input as its receiver does, with what Python brings, and prints what it says as JSON."""

import email
import email.policy
import gzip
import json
import sys
import xml.etree.ElementTree as xml


def of_dmarc(text):
    feedback = xml.fromstring(text)
    rows = []
    for record in feedback.findall("record"):
        row, auth = record.find("row"), record.find("auth_results")
        rows.append({
            "source": row.findtext("source_ip"),
            "count": int(row.findtext("count")),
            "disposition": row.findtext("policy_evaluated/disposition"),
            "dkim": row.findtext("policy_evaluated/dkim"),
            "spf": row.findtext("policy_evaluated/spf"),
            "header_from": record.findtext("identifiers/header_from"),
            "spf_result": auth.findtext("spf/result"),
        })
    return {
        "organization": feedback.findtext("report_metadata/org_name"),
        "id": feedback.findtext("report_metadata/report_id"),
        "begin": int(feedback.findtext("report_metadata/date_range/begin")),
        "domain": feedback.findtext("policy_published/domain"),
        "policy": feedback.findtext("policy_published/p"),
        "rows": rows,
    }


def of_tls(text):
    report = json.loads(text)
    return {
        "organization": report["organization-name"],
        "id": report["report-id"],
        "begin": report["date-range"]["start-datetime"],
        "policies": [
            {
                "type": policy["policy"]["policy-type"],
                "domain": policy["policy"]["policy-domain"],
                "well": policy["summary"]["total-successful-session-count"],
                "badly": policy["summary"]["total-failure-session-count"],
                "failures": sorted(details["result-type"] for details in policy["failure-details"]),
            }
            for policy in report["policies"]
        ],
    }


message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
(attached,) = list(message.iter_attachments())[-1:]
said = {
    "kind": message.get_content_type(),
    "report_type": message["Content-Type"].params.get("report-type"),
    "from": message["From"],
    "tls_required": message["TLS-Required"],
    "submitter": message["TLS-Report-Submitter"],
    "file": attached.get_filename(),
    "file_kind": attached.get_content_type(),
}
text = gzip.decompress(attached.get_content())
said |= of_dmarc(text) if ".xml" in said["file"] else of_tls(text)
print(json.dumps(said))
