"""`ropewalk profiles`: the settings that come with ropewalk, and what they were published for."""

from typing import TYPE_CHECKING, Any

from ropewalk.cli.options import Json
from ropewalk.cli.output import opened
from ropewalk.lengths import format_length

if TYPE_CHECKING:
    from ropewalk.profile import Profile


def profiles(as_json: Json = False) -> None:
    """List the profiles that are shipped: settings that authors published, and calibrations of our own.

    A profile of dpe is used as dpe:profile=NAME, and found by itself for the model and target that it was made for.
    """
    with opened(as_json) as out:
        found = listed()
        if not as_json:
            for one in found:
                model, target = one["model"], format_length(one["target_length"])
                out.console.print(f"{one['name']}: {model} at {target}", soft_wrap=True, markup=False)
                for what in ("method", "values", "source", "note"):
                    if one[what]:
                        out.console.print(f"    {what}: {one[what]}", soft_wrap=True, markup=False)
        out.finish({"profiles": found})


def listed() -> list[dict[str, Any]]:
    """One entry for each shipped profile."""
    from ropewalk.methods.grammar import format_value
    from ropewalk.profile import shipped

    return [
        {
            "name": name,
            "kind": profile.kind,
            "model": profile.provenance["model"],
            "target_length": profile.target_length,
            "method": method_of(name, profile),
            "values": ", ".join(
                f"{key}={format_value(tuple(value) if isinstance(value, list) else value)}"
                for key, value in profile.values.items()
            ),
            "fingerprint": str(profile.fingerprint),
            **_origin(profile),
        }
        for name, profile in shipped().items()
    ]


def method_of(name: str, profile: "Profile") -> str:
    """The method that takes a shipped profile, as published or by its name."""
    return str(profile.provenance.get("method", f"{profile.kind}:profile={name}"))


def _origin(profile: "Profile") -> dict[str, str | None]:
    """Who found it: its publisher, or `ropewalk calibrate`, and what was kept and why."""
    made = profile.provenance
    if "source" in made:
        return {"source": made["source"], "note": made.get("note")}
    read = made["read"]
    source = (
        f"ropewalk calibrate, budget {made['budget']['given']}: {read['readings']} readings, {read['tokens']:,} tokens"
    )
    return {"source": source, "note": made["confirmation"]["reason"]}
