"""What holds on each machine after site.yml, and fails on a bare one. Run by tests/machines."""

import json


def sshd(host):
    return host.run("/usr/sbin/sshd -T").stdout


def test_root_and_passwords_are_refused_by_ssh(host):
    text = sshd(host)
    assert "permitrootlogin no" in text and "passwordauthentication no" in text and "authenticationmethods publickey" in text


def test_ssh_takes_keys_from_one_file_alone(host):
    lines = sshd(host).splitlines()
    for line in ["authorizedkeysfile .ssh/authorized_keys", "authorizedkeyscommand none", "trustedusercakeys none"]:
        assert line in lines
    assert [line for line in lines if line.startswith("allowusers ")] == ["allowusers deploy", "allowusers devops"]


def test_ssh_speaks_modern_algorithms_only(host):
    lines = dict(line.split(" ", 1) for line in sshd(host).splitlines() if " " in line)
    assert "sha1" not in lines["macs"] and "cbc" not in lines["ciphers"] and "ctr" not in lines["ciphers"]
    assert all("diffie-hellman" not in k and "nistp" not in k for k in lines["kexalgorithms"].split(","))


def test_devops_may_look_and_reload_and_nothing_else(host):
    rights = host.run("sudo -l -U devops").stdout
    assert "systemctl reload mailraft.service" in rights and "ALL) NOPASSWD: ALL" not in rights
    assert "(ALL : ALL) NOPASSWD: ALL" in host.run("sudo -l -U deploy").stdout


def test_devops_reads_no_file_as_root_by_an_argument(host):
    assert host.run("runuser -u devops -- sudo -n mailraft status --json").rc == 0
    for arguments in ["--token-file /etc/shadow", "--json --admin http://127.0.0.1:1 --token-file /etc/mailraft/root.key", "--dir /root"]:
        refused = host.run(f"runuser -u devops -- sudo -n mailraft status {arguments}")
        assert refused.rc != 0 and "a password is required" in refused.stderr


def test_firewall_drops_by_default_for_both_families(host):
    rules = json.loads(host.run("nft --json list table inet mailraft").stdout)["nftables"]
    chains = {c["chain"]["name"]: c["chain"] for c in rules if "chain" in c}
    assert chains["input"]["policy"] == "drop" and chains["forward"]["policy"] == "drop"
    sets = {s["set"]["name"] for s in rules if "set" in s}
    assert {"nodes4", "nodes6", "operators4", "operators6", "scanners4", "scanners6"} <= sets


def test_firewall_comes_back_at_the_next_start(host):
    assert host.service("nftables").is_enabled and host.file("/etc/nftables.conf").contains("table inet mailraft")


def test_node_runs_with_least_rights(host):
    show = host.run("systemctl show mailraft -p User,NoNewPrivileges,ProtectSystem,CapabilityBoundingSet,LimitNOFILE,MemoryMax").stdout
    for line in ["User=mailraft", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=cap_net_bind_service",
                 "LimitNOFILE=262144", "MemoryMax=2147483648"]:
        assert line in show.splitlines()
    assert host.service("mailraft").is_running and host.service("mailraft").is_enabled


def test_secrets_are_roots_and_the_authority_is_on_no_node(host):
    for name in ["root.key", "peer.key", "admin-token"]:
        file = host.file(f"/etc/mailraft/{name}")
        assert (file.user, file.mode) == ("root", 0o600)
    key = host.file("/etc/mailraft/mail.key")
    assert (key.user, key.group, key.mode) == ("root", "mailraft", 0o640)
    assert host.run("find / -xdev -name ca.key").stdout == ""


def test_files_are_as_open_as_they_need_to_be(host):
    wanted = {
        "/etc/mailraft": "root mailraft 750",
        "/etc/mailraft/ca.pem": "root root 644",
        "/etc/mailraft/mailraft.toml": "root mailraft 640",
        "/etc/mailraft/mail.pem": "root mailraft 640",
        "/etc/mailraft/peer.pem": "root root 644",
        "/etc/mailraft/revoked": "root root 644",
        "/etc/nftables.conf": "root root 600",
        "/etc/prometheus/mailraft-alerts.yml": "root root 644",
        "/etc/prometheus/prometheus.yml": "root prometheus 640",
        "/etc/ssh/sshd_config.d/00-mailraft.conf": "root root 600",
        "/etc/sudoers.d/mailraft": "root root 440",
        "/etc/systemd/system/mailraft.service.d/10-memory.conf": "root root 644",
        "/home/deploy/.ssh": "deploy deploy 700",
        "/home/deploy/.ssh/authorized_keys": "deploy deploy 600",
        "/home/devops/.ssh/authorized_keys": "devops devops 600",
        "/usr/local/sbin/mailraft-restart-safely": "root root 755",
        "/var/cache/mailraft/installed.deb": "root root 644",
        "/var/lib/mailraft": "mailraft mailraft 700",
        "/var/lib/mailraft/data": "mailraft mailraft 700",
    }
    there = dict(line.split(":", 1) for line in host.run(f"stat -c '%n:%U %G %a' {' '.join(wanted)}").stdout.splitlines())
    assert there == wanted
    assert host.run("find /etc/mailraft /var/lib/mailraft ! -user root ! -user mailraft").stdout == ""
    # Secrets, and nothing else that is there, are closed to the node's group.
    known = {"root.key", "peer.key", "admin-token", "mail.key"} | {path.rsplit("/", 1)[1] for path in wanted if path.startswith("/etc/mailraft/")}
    assert set(host.run("ls -A /etc/mailraft").stdout.split()) == known


def test_no_secret_is_on_a_command_line(host):
    token = host.file("/etc/mailraft/admin-token").content_string.strip()
    assert len(token) >= 16 and token not in host.run("ps -eo args").stdout


def test_node_serves(host):
    assert host.run("curl -fsS http://127.0.0.1:10080/readyz").stdout == "ready\n"
    for port in [25, 110, 143, 465, 587, 993, 995, 10700]:
        assert host.socket(f"tcp://:::{port}").is_listening


def test_prometheus_reads_the_node_on_loopback_only(host):
    reply = host.run("curl -fsS --retry 10 --retry-delay 1 --retry-all-errors 'http://127.0.0.1:9090/api/v1/targets'").stdout
    jobs = {t["labels"]["job"] for t in json.loads(reply)["data"]["activeTargets"]}
    assert jobs == {"mailraft", "machine"}
    assert not host.socket("tcp://0.0.0.0:9090").is_listening and not host.socket("tcp://:::9100").is_listening
