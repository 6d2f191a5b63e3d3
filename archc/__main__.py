"""``python -m archc``, and so ``torchrun -m archc``."""

from archc.main import app

app(prog_name="archc")
