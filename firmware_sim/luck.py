"""Which updates meet which trouble, and when: drawn from names, so that a run can be repeated. No I/O, no clock."""

from dataclasses import dataclass
from enum import StrEnum

from firmware_sim.chance import unit


class Fault(StrEnum):
    """Trouble an update can meet."""

    INTERRUPTED = "interrupted"
    """The download breaks off once and is resumed."""
    CORRUPT = "corrupt"
    """The image does not match its digest."""
    POWER_CUT_DOWNLOADING = "power-cut-downloading"
    """Resumed where it was."""
    POWER_CUT_RESUMES = "power-cut-resumes"
    """Power goes while installing; installed again after it."""
    POWER_CUT_ROLLS_BACK = "power-cut-rolls-back"
    """Power goes while installing; the device stays on what it had."""
    INSTALL_FAILS = "install-fails"
    BOOT_FAILS = "boot-fails"
    """The new image does not boot; the boot loader goes back by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """Which of a device's updates meet which trouble; the same in every run with the same seed."""

    seed: int = 0
    device_id: str = ""
    rate: float = 0.0
    faults: tuple[Fault, ...] = tuple(Fault)

    def fault(self, job: str) -> Fault | None:
        if not self.faults or unit(self.seed, self.device_id, job, "fault") >= self.rate:
            return None
        return self.faults[int(unit(self.seed, self.device_id, job, "which") * len(self.faults))]

    def where(self, job: str) -> float:
        """How far the step is when trouble comes: 0.2 to 0.8."""
        return 0.2 + 0.6 * unit(self.seed, self.device_id, job, "where")
