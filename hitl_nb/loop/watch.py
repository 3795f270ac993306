"""A promise that is watched: the certificate by which an orchestrator decides, taken back when it no longer holds."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from hitl_nb.display import Shows, Table
from hitl_nb.errors import BadInput
from hitl_nb.evidence import Certificate
from hitl_nb.lab.drift import FEWEST, DriftAlarm
from hitl_nb.orchestrator import Orchestrator


class Watch(Shows):
    """Lets an orchestrator decide by a certificate, and takes that back when its promise no longer holds.

    Made again after a restart it goes on: it finds in the log when the certificate was put to use, and whether anybody
    has taken it back. Until then `look` belongs wherever answers come in; a revoked certificate lets nothing through,
    with the reason "No valid certificate for model v8".

    Parameters
    ----------
    orchestrator
        What decides; its policy stays as it is but for the threshold.
    certificate
        What a threshold rule found, such as ``choose_threshold(queue.history(), ...)``.
    level
        1 - chance of a wrong alarm, over all looks together.
    bound
        Error rate at which the alarm watches; None: the one that is promised.
    confidences
        Whether confidences other than before are an alarm too; not where they follow the hours of the day.

    Examples
    --------
    >>> from hitl_nb import open_queue
    >>> promise = Certificate(
    ...     threshold=0.9, target_risk=0.02, confidence_level=0.95, n=400, coverage=0.7, kind="certified", model="v8")
    >>> orchestrator = Orchestrator(queue=open_queue(":memory:"))
    >>> watch = Watch(orchestrator, promise)
    >>> watch.revoke("the camera was moved").revoked_at is None
    False
    >>> orchestrator.process({}, {"label": "ok", "confidence": 0.99, "model": "v8"})["reason"]
    'No valid certificate for model v8'
    """

    def __init__(
        self, orchestrator: Orchestrator, certificate: Certificate, *, level: float = 0.95, bound: float | None = None,
        confidences: bool = True,
    ) -> None:  # fmt: skip
        self.orchestrator, self.queue, self.certificate = orchestrator, orchestrator.queue, certificate
        self._level, self._bound, self._confidences = level, certificate if bound is None else bound, confidences
        self._seen, self._lock = {"issue_certificate": 0, "revoke_certificate": 0}, threading.RLock()
        self._issued: datetime | None = None
        #: what the last look saw; None before it
        self.alarm: DriftAlarm | None = None
        DriftAlarm(self._bound, level)  # says at once what is wrong with them
        if not (rate := orchestrator.policy.audit_rate):
            raise BadInput(name="audit_rate", value=rate, remedy="must be above 0: only audits tell whether it holds")
        self._read_log()
        if self._issued is None:
            self.queue.note("issue_certificate", {"certificate": certificate.to_dict(), "says": str(certificate)})
            self._read_log()
        self._use()

    def look(self) -> Certificate:
        """Judge all answers so far, and take the certificate back if the alarm fires; returns it as it stands now.

        Errors are those of its own model that audits found since it was put to use, at confidences that it lets
        through: what another policy let through below says nothing of it. Confidences are compared with those
        before, where the queue holds at least 100.
        """
        with self._lock:
            self._read_log()
            if self.certificate.revoked_at is None:
                self.alarm = self._fed()
                if self.alarm.fired:
                    return self.revoke(str(self.alarm))
            self._use()
            return self.certificate

    def revoke(self, why: str) -> Certificate:
        """Take the certificate back, and log why; whoever watches it elsewhere follows at the next look."""
        with self._lock:
            self._read_log()
            if self.certificate.revoked_at is None:
                self.queue.note("revoke_certificate", {"certificate": self.certificate.id, "why": why})
                self._read_log()
            self._use()
            return self.certificate

    def _fed(self) -> DriftAlarm:
        rows = self.queue.history()
        if self.certificate.model is not None:
            rows = rows[(rows["model"] == self.certificate.model).fillna(False)]
        since = rows["at_time"] > self._issued
        known = rows.loc[~since & ~rows["hard"].fillna(True).astype(bool), "confidence"].dropna().to_numpy(np.float64)
        enough = self._confidences and len(known) >= FEWEST
        alarm = DriftAlarm(self._bound, self._level, reference=known if enough else None)
        alarm.feed(rows[since], threshold=self.certificate.threshold)
        return alarm

    def _read_log(self) -> None:
        """Take note of what has become of the certificate, here or elsewhere."""
        for move in self._seen:
            while events := self.queue.events(self._seen[move], limit=1000, move=move):
                self._seen[move] = events[-1]["seq"]
                for event in events:
                    self._note(event["body"]["certificate"], event["at_time"])

    def _note(self, named: dict[str, Any] | str, at_time: datetime) -> None:
        """Take note of an issue, whose event holds a whole certificate, or of a revocation, which names one."""
        if isinstance(named, str) and named == self.certificate.id:
            self.certificate = self.certificate.revoked(at_time)
        elif isinstance(named, dict) and named["id"] == self.certificate.id:
            self._issued = self._issued or at_time

    def _use(self) -> None:
        policy = self.orchestrator.policy
        if policy.confidence_threshold != self.certificate:
            self.orchestrator.use(replace(policy, confidence_threshold=self.certificate))

    def __str__(self) -> str:
        return str(self.certificate if self.alarm is None else self.alarm)

    def _table(self) -> Table:
        found = self.certificate._table()
        return found if self.alarm is None else replace(found, facts=(*found.facts, str(self.alarm)))
