"""One check for each item of hardening, by its name: fails on a bare machine, holds after site.yml. Run by tests/hardening."""

SYSCTL = {
    "net.ipv4.conf.all.rp_filter": "1",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv4.tcp_syncookies": "1",
    "kernel.kptr_restrict": "2",
    "kernel.yama.ptrace_scope": "2",
    "kernel.unprivileged_bpf_disabled": "1",
    "kernel.randomize_va_space": "2",
    "fs.suid_dumpable": "0",
}


def test_usb_storage(host):
    assert "/bin/false" in host.run("modprobe --show-depends usb-storage; modprobe --show-depends uas").stdout
    assert host.run("modprobe usb-storage").rc != 0


def test_kernel_parameters(host):
    wrong = {key: host.sysctl(key) for key in SYSCTL if str(host.sysctl(key)) != SYSCTL[key]}
    assert wrong == {}


def test_core_dumps(host):
    assert host.file("/proc/sys/kernel/core_pattern").content_string.strip() == "|/bin/false"
    assert "DumpCore=no" in host.run("systemctl show -p DumpCore; cat /etc/systemd/system.conf.d/90-mailraft-core.conf").stdout


def test_swap(host):
    assert len(host.file("/proc/swaps").content_string.splitlines()) == 1
    assert host.run("systemctl is-enabled swap.target").stdout.strip() == "masked"


def test_huge_pages(host):
    assert "[never]" in host.file("/sys/kernel/mm/transparent_hugepage/enabled").content_string
    assert host.service("mailraft-huge-pages").is_enabled


def test_updates(host):
    config = host.run("apt-config dump").stdout
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in config and 'APT::Periodic::Unattended-Upgrade "1";' in config
    assert '"^mailraft$"' in config
    origins = [line for line in config.splitlines() if line.startswith(("Unattended-Upgrade::Origins-Pattern:", "Unattended-Upgrade::Allowed-Origins:"))]
    assert len(origins) == 1 and "codename=${distro_codename}-security" in origins[0], origins
    assert host.service("mailraft-reboot.timer").is_enabled and host.service("mailraft-reboot.timer").is_running


def test_file_limits(host):
    assert host.run("su -s /bin/bash -c 'ulimit -Hn' deploy").stdout.strip() == "65536"


def test_time(host):
    assert host.file("/etc/systemd/timesyncd.conf.d/90-mailraft.conf").contains("NTP=127.0.0.1")
    assert host.service("systemd-timesyncd").is_enabled and host.service("systemd-timesyncd").is_running


def test_audit(host):
    rules = host.run("auditctl -l").stdout
    assert "-w /etc/mailraft" in rules and "mailraft-keys" in rules and "/etc/sudoers" in rules
    host.run("cat /etc/mailraft/root.key")
    # Without a terminal ausearch would read its standard input; the daemon writes a moment later.
    found = host.run("for _ in 1 2 3 4 5 6 7 8 9 10; do ausearch --input-logs -k mailraft-keys && break; sleep 1; done").stdout
    assert "mailraft-keys" in found and "/etc/mailraft/root.key" in found


def test_fail2ban(host):
    status = host.run("fail2ban-client status sshd")
    assert status.rc == 0
    assert "10.0.2.2" in host.run("fail2ban-client get sshd ignoreip").stdout


def test_fail2ban_takes_the_line_that_sshd_writes(host):
    line = "Nov 25 22:00:00 mx1 sshd[1]: Invalid user admin from 203.0.113.5 port 4"
    assert host.service("fail2ban").is_running
    assert "1 matched" in host.run(f"fail2ban-regex '{line}' 'sshd[mode=aggressive]'").stdout
    assert host.file("/etc/fail2ban/jail.d/mailraft.conf").exists


def test_fail2ban_takes_the_line_that_a_node_writes(host):
    assert host.run("fail2ban-client status mailraft").rc == 0
    line = "login refused: service=imap result=wrong user=a***@example.org address=203.0.113.5"
    assert "1 matched" in host.run(f"fail2ban-regex '{line}' mailraft-logins").stdout


def test_ssh(host):
    text = host.run("/usr/sbin/sshd -T").stdout
    assert "permitrootlogin no" in text and "passwordauthentication no" in text


def test_firewall(host):
    rules = host.run("nft list table inet mailraft").stdout
    assert "policy drop" in rules and "elements = { 10.0.2.15 }" in rules


def test_disk(host):
    assert "LUKS2" in host.run("cryptsetup status mailraft-data").stdout
    mount = host.mount_point("/var/lib/mailraft")
    assert mount.device == "/dev/mapper/mailraft-data"
    assert {"noexec", "nosuid", "nodev"} <= set(mount.options)
    host.run("cp /bin/true /var/lib/mailraft/true")
    ran = host.run("/var/lib/mailraft/true")
    host.run("rm /var/lib/mailraft/true")
    assert ran.rc == 126


def test_packages_and_users(host):
    assert not host.package("apport").is_installed and not host.package("rpcbind").is_installed
    assert host.user("devops").exists and host.user("deploy").exists


def test_node(host):
    assert host.run("curl -fsS http://127.0.0.1:10080/readyz").stdout == "ready\n"
    assert host.run("systemctl show mailraft -p WatchdogUSec").stdout.strip() == "WatchdogUSec=30s"
