#!/usr/bin/env bash
# OpenSMTPD refuses each mail above the limit of a connection as "too many recipients", and leaves the connection open.
#
# Most people expect: a server that takes no more mails over a connection says 421 and closes it (RFC 5321, 3.8), so that
# the client opens another one; and 452 4.5.3 answers a RCPT, because a mail has too many recipients.
# What happens: OpenSMTPD 6.8 answers the MAIL of the 101st mail of a session with "452 4.5.3 Too many recipients: Too
# many messages sent", though it has no recipient yet. The connection stays open, and every further MAIL on it gets the
# same.
# Why it matters to a mail worker: with persistent connections all mails are deferred from the 101st on, for as long as
# the connection is used, and each of them pays an attempt; by the text its list of recipients is to blame. A new
# connection would take it at once.
#
# Guess written down before running: 421 to the MAIL of the 101st mail, and the end of the connection.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "a mail server installs as root only"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/layer" "$folder/root"
cat > "$folder/settings" <<'SETTINGS'
listen on 127.0.0.1 port 2525 hostname relay.example.org
table everybody { "@" = "nobody" }
action "drop" mda "cat >/dev/null" virtual <everybody>
match from any for any action "drop"
SETTINGS

cat > "$folder/show.py" <<'PYTHON'
import smtplib
import sys
import time


def connected():
    for _ in range(100):
        try:
            return smtplib.SMTP("127.0.0.1", 2525)
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit("OpenSMTPD does not listen")


def send(client):
    code, said = client.mail("sender@example.org")
    if code != 250:
        client.rset()
        return f"{code} {said.decode()}"
    client.rcpt("recipient@example.com")
    code, _ = client.data(b"Subject: x\r\n\r\nhello\r\n")
    return str(code)


first = connected()
first.ehlo("client.example.com")
answers = [send(first) for _ in range(104)]
for number in (1, 100, 101, 102, 104):
    print(f"mail {number:3} on one connection -> {answers[number - 1]}")
second = connected()
second.ehlo("client.example.com")
fresh = send(second)
print(f"a mail on another one     -> {fresh}")

reason = "452 4.5.3 Too many recipients: Too many messages sent"
if [*answers, fresh] == ["250"] * 100 + [reason] * 4 + ["250"]:
    sys.exit(0)
print("this has changed")
sys.exit(1)
PYTHON

# Mail servers conflict with each other and want users and folders of the system. So it is installed in a layer over the
# system that only this process and its children see, with a network of their own.
cat > "$folder/inside.sh" <<'INSIDE'
set -eu
dpkg-query --show --showformat '${Package} ${Version}\n' opensmtpd
cp /show/settings /etc/smtpd.conf
smtpd -d > /show/log 2>&1 &
python3 /show/show.py
INSIDE
# shellcheck disable=SC2016  the variables are those of the shell inside
folder=$folder unshare --mount --fork --pid --kill-child bash -euc '
mount -t tmpfs none "$folder/layer"
mkdir "$folder/layer/upper" "$folder/layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" "$folder/root"
mount -t proc proc "$folder/root/proc"
mount --rbind /dev "$folder/root/dev"
mkdir "$folder/root/show"
cp "$folder"/inside.sh "$folder"/show.py "$folder"/settings "$folder/root/show"
printf "#!/bin/sh\nexit 101\n" > "$folder/root/usr/sbin/policy-rc.d"
chmod 755 "$folder/root/usr/sbin/policy-rc.d"
install="apt-get --quiet=2 --yes --no-install-recommends install opensmtpd=6.8.0p2-4+b4"
DEBIAN_FRONTEND=noninteractive chroot "$folder/root" $install < /dev/null > "$folder/install.log" 2>&1 ||
  { tail "$folder/install.log"; exit 2; }
unshare --net bash -euc "ip link set lo up; exec chroot $folder/root bash /show/inside.sh"
'
