#!/usr/bin/env bash
# When Exim ends a connection because of too many commands, it writes the reason unencrypted into the TLS connection.
#
# Most people expect: a server that gives up a connection says why in its last reply, in TLS as in plain.
# What happens: Exim 4.96 with GnuTLS answers the RSET that is one too many (`smtp_accept_max_nonmail`, 10) with the
# octets "554 Too many nonmail commands" as they are, between the records of TLS, and closes. A client reads all replies
# before it, and then its TLS library fails: OpenSSL calls it a wrong version number. Without TLS the 554 arrives.
# Why it matters to a mail worker: RSET between refused mails is what RFC 5321 offers, and after ten of them the
# connection ends in what looks like a fault of TLS or of the network, never with the relay's reason. Whoever looks for
# it checks certificates.
#
# Guess written down before running: the 554 arrives in TLS like every other reply.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "Exim starts as root only"; exit 2; }
folder=$(mktemp -d)
chmod 755 "$folder"
trap 'kill "$(jobs -p)" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download --quiet=2 -o APT::Sandbox::User=root exim4-daemon-light=4.96-15+deb12u11 libidn12=1.41-1 \
  libgnutls-dane0=3.7.9-2+deb12u7 libunbound8=1.17.1-2+deb12u4 libevent-2.1-7=2.1.12-stable-8+deb12u1 \
  libdb5.3=5.3.28+dfsg2-1 libnsl2=1.3.0-2 libtirpc3=1.3.3+ds-1 libnss-wrapper=1.1.12-1
for package in *.deb; do dpkg -x "$package" .; done
python3 -m venv venv
venv/bin/pip --quiet install trustme==1.2.1
venv/bin/python -m trustme --quiet
cat server.key server.pem > relay.pem

# Exim runs as the user of its package, whom these files name instead of the system's.
echo "root:x:0:0:::
Debian-exim:x:101:101:::" > passwd
echo "root:x:0:
Debian-exim:x:101:" > group
mkdir spool logs
chown 101:101 spool logs
cat > exim.conf <<SETTINGS
primary_hostname = relay.example.org
spool_directory = $folder/spool
log_file_path = $folder/logs/%slog
pid_file_path = $folder/logs/exim.pid
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = $folder/relay.pem
acl_smtp_rcpt = refuse
queue_only = true
keep_environment =
add_environment =
begin acl
refuse:
  deny message = nobody here
SETTINGS

cat > show.py <<'PYTHON'
import socket
import ssl
import sys
import time

port = int(sys.argv[1])


class Client:
    """Talks SMTP; keeps the octets as they came over the wire, and those that TLS made of them."""

    def __init__(self):
        self.socket = connected()
        self.tls, self.wire, self.text, self.error = None, b"", b"", ""

    def send(self, octets):
        if self.tls is None:
            self.socket.sendall(octets)
        else:
            self.tls.write(octets)
            self.socket.sendall(self.outgoing.read())

    def receive(self):
        received = self.socket.recv(65536)
        self.wire += received
        if self.tls is None:
            self.text += received
        elif received:
            self.incoming.write(received)
            try:
                while True:
                    self.text += self.tls.read(65536)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error.reason
        return bool(received)

    def reply(self):
        while True:
            line, end, rest = self.text.partition(b"\r\n")
            if end:
                self.text = rest
                if line[3:4] != b"-":
                    return line.decode()
            elif self.error or not self.receive():
                return ""

    def ask(self, command):
        self.send(command.encode() + b"\r\n")
        return self.reply()

    def start_tls(self):
        self.ask("STARTTLS")
        context = ssl.create_default_context(cafile="client.pem")
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self.outgoing.read())
                self.incoming.write(self.socket.recv(65536))
                continue
            self.socket.sendall(self.outgoing.read())
            break
        self.tls = tls


def connected():
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit("Exim does not listen")


def say_too_much(with_tls):
    client = Client()
    print("\n" + client.reply())
    client.ask("EHLO client.example.com")
    if with_tls:
        client.start_tls()
        client.ask("EHLO client.example.com")
    for count in range(1, 20):
        client.ask("MAIL FROM:<sender@example.org>")
        client.ask("RCPT TO:<recipient@example.com>")
        said = client.ask("RSET")
        if not said.startswith("250"):
            break
    print(f"{'TLS' if with_tls else 'plain'}: RSET {count} -> {said!r} {client.error}")
    print(f"  the last octets on the wire: {client.wire[-31:]}")
    return said, client


reason = "554 Too many nonmail commands"
plain, _ = say_too_much(with_tls=False)
secret, client = say_too_much(with_tls=True)
if (plain, secret, client.error) == (reason, "", "WRONG_VERSION_NUMBER") and client.wire.endswith(reason.encode() + b"\r\n"):
    sys.exit(0)
print("this has changed")
sys.exit(1)
PYTHON
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
libraries=$(echo "$folder"/usr/lib/*-linux-gnu)
env LD_LIBRARY_PATH="$libraries" LD_PRELOAD="$libraries/libnss_wrapper.so" NSS_WRAPPER_PASSWD="$folder/passwd" \
  NSS_WRAPPER_GROUP="$folder/group" "$folder/usr/sbin/exim4" -C "$folder/exim.conf" -bdf -oX "$port" &
venv/bin/python show.py "$port"
