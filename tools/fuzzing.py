"""Run the targets of fuzz_targets.py with atheris, each in its own process, and print the number of inputs tried."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FINDS = ROOT / ".fuzz"
_DONE = re.compile(r"Done (\d+) runs? in (\d+) second")
_COVERED = re.compile(r"cov: (\d+)")


def fuzz_one(name: str, seconds: int) -> tuple[int, int, list[Path]]:
    """Run one target; return the inputs tried, the edges covered, and the inputs that failed."""
    from fuzz_targets import CORPUS  # noqa: PLC0415  the child process must import it with instrumentation

    finds, seeds, failed = FINDS / name, CORPUS / name, FINDS / f"{name}-failed"
    # Inputs that failed before are in the corpus already, and are tried first.
    shutil.rmtree(failed, ignore_errors=True)
    for folder in (finds, failed):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={failed}/",
        "-max_len=4096",
        "-timeout=20",
        "-rss_limit_mb=0",
    ]
    folders = [str(finds), *([str(seeds)] if seeds.is_dir() else [])]
    command = [sys.executable, __file__, "--target", name, *options, *folders]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    output = done.stderr + done.stdout
    runs = _DONE.search(output)
    covered = _COVERED.findall(output)
    found = sorted(failed.iterdir())
    if found or done.returncode:
        print(output[-4000:], file=sys.stderr)
    for path in found:
        seeds.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, seeds / path.name)
    return (
        int(runs[1]) if runs else 0,
        int(covered[-1]) if covered else 0,
        found or ([failed] if done.returncode else []),
    )


def run_target(name: str, options: list[str]) -> None:
    """Fuzz one target in this process with these options of libFuzzer; without -max_total_time it does not end."""
    import atheris  # noqa: PLC0415  only tools/fuzz installs it

    with atheris.instrument_imports(include=["trio_worker"]):
        from fuzz_targets import TARGETS  # noqa: PLC0415  as above
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--target"]:
        run_target(sys.argv[2], sys.argv[3:])
        return 0
    from fuzz_targets import TARGETS  # noqa: PLC0415  a child process imports it with instrumentation

    parser = argparse.ArgumentParser(prog="tools/fuzz", description="Fuzz what parses and what speaks SMTP.")
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together (1)")
    parser.add_argument("targets", nargs="*", help=" ".join(TARGETS))
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    for name in names:
        if name not in TARGETS:
            parser.error(f"no such target: {name}")
    seconds = max(1, round(options.minutes * 60 / len(names)))
    print(f"{'target':<10} {'inputs':>12} {'edges':>7} {'failed':>7}")
    failed = 0
    for name in names:
        runs, edges, found = fuzz_one(name, seconds)
        failed += len(found)
        print(f"{name:<10} {runs:>12,} {edges:>7,} {len(found):>7}", flush=True)
        for path in found:
            print(f"  {path}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
