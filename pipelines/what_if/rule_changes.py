"""Reads the rules of a finished run and applies the changes of `gristmill what-if --set`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.config import rules
from curation.config.stored_pipeline import read_stored_pipeline
from curation.config.where_condition import limit_rule, one_line, parts_of_rule
from curation.core.errors import UserError
from curation.step import GlobalStep
from curation.storage import Storage


@dataclass
class Step:
    """A step of the run with its rules (name -> SQL), before and after the changes."""

    name: str
    is_global: bool
    old: dict[str, str]
    new: dict[str, str]


def load_steps(store: Storage, run_dir: str, undecided: Sequence[str] = ()) -> tuple[list[Step], str | None, bool]:
    """(steps, name of the first language step, whether quantiles are pinned to another run's).

    The steps are those of the resolved pipeline that the run came to: without the `undecided` of a run that stopped.
    Raises UserError for a run without steps.
    """
    from curation.config.catalogue import STEPS
    from curation.config.step_options import find_known_class
    from curation.engine.runtime.run_record import read_run

    pipeline = read_stored_pipeline(store)
    entries = [e for e in pipeline["steps"] if e["name"] not in undecided]
    if not entries:
        raise UserError(f"what-if: {run_dir} has no steps, so it has no rules")
    run = read_run(store)
    steps, language = [], None
    for entry in entries:
        try:
            is_global = issubclass(find_known_class(entry["step"], STEPS, run.get("file") or ""), GlobalStep)
        except UserError:  # a user's own step
            is_global = entry["name"] in run.get("stages", {})
        steps.append(Step(entry["name"], is_global, dict(entry["rules"]), dict(entry["rules"])))
        if entry["step"] == "language":
            language = language or entry["name"]
    return steps, language, pipeline.get("quantiles") is not None


def apply_change(steps: Sequence[Step], text: str) -> dict[str, str | None]:
    """Applies one `--set` to the steps and returns {step, rule, before, after}, SQL on one line.

    `where:` of a step limits its new rules too. Raises UserError for a key that names no rule, or more than one.
    """
    key, equals, sql = text.partition("=")
    key, sql = key.strip(), sql.strip()
    if not equals or not key or not sql:
        raise UserError(f"what-if: --set {text}: expected RULE='SQL', or RULE=null to remove the rule")
    step, rule = _find_rule(steps, key)
    before = step.new.get(rule)
    if sql == "null":
        if before is None:
            raise UserError(f"what-if: {step.name} has no rule {rule!r} to remove\n  its rules: {', '.join(step.old)}")
        del step.new[rule]
        return {"step": step.name, "rule": rule, "before": one_line(before), "after": None}
    rules.parse(rule, sql, f"what-if: {step.name}.{rule}")
    limits = {condition for s in step.old.values() if (condition := parts_of_rule(s)[1])}
    step.new[rule] = limit_rule(sql, limits.pop()) if len(limits) == 1 else sql
    shown = None if before is None else one_line(before)
    return {"step": step.name, "rule": rule, "before": shown, "after": one_line(step.new[rule])}


def _find_rule(steps: Sequence[Step], key: str) -> tuple[Step, str]:
    """The step and rule that RULE, STEP.RULE or steps.STEP.keep.RULE names; of a named step the rule may be new."""
    parts = key.split(".")
    if parts[0] == "steps" and len(parts) == 4 and parts[2] == "keep":
        parts = [parts[1], parts[3]]
    if len(parts) == 1:
        matches = [s for s in steps if key in s.old]
        if len(matches) == 1:
            return matches[0], key
        problem = "several steps have" if matches else "no step has"
        existing = ", ".join(f"{s.name}.{r}" for s in steps for r in s.old)
        raise UserError(f"what-if: {problem} a rule {key!r}; write STEP.{key}\n  rules of the run: {existing}")
    step = next((s for s in steps if s.name == parts[0]), None)
    if step is None or len(parts) != 2:
        raise UserError(
            f"what-if: --set {key}: expected RULE, STEP.RULE or steps.STEP.keep.RULE\n"
            f"  steps of the run: {', '.join(s.name for s in steps)}"
        )
    return step, parts[1]
