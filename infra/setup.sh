#!/usr/bin/env bash
# Builds the virtual environment: infra/setup.sh VENV_DIR
#
# The closure is pinned and installed without dependency resolution: minutes instead of tens of minutes, and the same
# environment everywhere. torchvision, torchaudio and torchcodec are left out on purpose: beside a CPU torch their
# default builds fail to import and take transformers down with them.
#
# torch comes first, from the first place that has it:
#   1. the CPU wheel, wherever pip is configured to look (index, extra index, find-links)
#   2. the CPU wheel from PONDER_TORCH_INDEX, if you name an index that carries CPU builds
#   3. the default build of the same version, with what it needs (larger, works the same)
set -euo pipefail
venv=${1:?usage: infra/setup.sh VENV_DIR}
here=$(cd "$(dirname "$0")" && pwd)
torch=2.13.0

${PYTHON:-python3} -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Ponder needs Python 3.11 or newer; set PYTHON to one" >&2; exit 1; }
echo "setting up $venv (a few minutes the first time)"
[ -x "$venv/bin/python" ] || ${PYTHON:-python3} -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

if ! "$venv/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(not m.version("torch").startswith(sys.argv[1]))' "$torch" 2>/dev/null; then
  pip install -q --no-deps "torch==$torch+cpu" 2>/dev/null ||
    { [ -n "${PONDER_TORCH_INDEX:-}" ] && pip install -q --no-deps --index-url "$PONDER_TORCH_INDEX" "torch==$torch+cpu"; } ||
    { echo "no CPU build of torch $torch found; installing the default build"; pip install -q "torch==$torch"; }
fi
pip install -q --no-deps -r "$here/locks/cpu.txt" 2> >(grep -v -e 'is ignored: it is neither' >&2)
pip install -q --no-deps --no-build-isolation -e "$here/.."

# Only jobs that run programs need it; they refuse to without, and everything else works.
if ! command -v bwrap >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
    { apt-get install -y -q bubblewrap || { apt-get update -q && apt-get install -y -q bubblewrap; }; } >/dev/null 2>&1; then
    echo "installed bubblewrap"
  else
    echo "bubblewrap (bwrap) is not installed: the verifier kind 'programs' will not run; install your system's package" >&2
  fi
fi
echo "ready: $venv/bin/ponder"
