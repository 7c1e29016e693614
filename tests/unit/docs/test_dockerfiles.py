"""The images of the services that speak Channel Access are built alike."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OWN_STEPS = ("cel_expr_python/ext",)
"""What is taken out of the image of the restore service only: the others do not have it."""


def common_steps(service: str) -> list[str]:
    """The lines of a Dockerfile without the service's name, port and own steps."""
    text = (ROOT / "services" / service / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(rf"{service}(?!\w)", "SERVICE", text, flags=re.IGNORECASE)
    text = re.sub(rf"{service}_LISTEN", "SERVICE_LISTEN", text, flags=re.IGNORECASE)
    text = re.sub(r"\b710\d\b", "PORT", text)
    return [line for line in text.splitlines() if not any(step in line for step in OWN_STEPS)]


def test_what_is_mended_in_one_is_mended_in_all() -> None:
    assert len(common_steps("snapshot")) > 30
    assert common_steps("monitor") == common_steps("snapshot")
    assert common_steps("restore") == common_steps("snapshot")
