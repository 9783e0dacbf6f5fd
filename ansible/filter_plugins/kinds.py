"""Filters that hold variables against a role's meta/argument_specs.yml. Ansible itself takes a text for a list, and any word for a text."""

import difflib
import re

WORDS = {"yes", "no", "true", "false", "on", "off", "y", "n", "t", "f", "1", "0"}


def wrong_value(name, value, spec):
    """A sentence about a value that is not of the kind that its variable has, or nothing."""
    kind = spec.get("type", "str")
    if value is None:
        return f"{name} is empty: give it a value, or leave its line away"
    if kind in ("str", "path") and not isinstance(value, str):
        return f"{name} is {value}, which YAML takes for no text: write it in quotes"
    if kind == "bool" and not (isinstance(value, bool) or str(value).lower() in WORDS):
        return f"{name} is {value}: write true or false"
    if kind == "int" and (isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+", str(value))):
        return f"{name} is {value}: write a whole number"
    if kind == "list" and not isinstance(value, (list, tuple)):
        return f"{name} is {value}, which is no list: write it in brackets"
    if kind == "dict" and not isinstance(value, dict):
        return f"{name} is {value}, which is no mapping: write keys and values"
    if kind == "list":
        elements = {"type": spec.get("elements", "str")}
        return next(filter(None, (wrong_value(f"{name}[{n}]", own, elements) for n, own in enumerate(value))), "")
    if kind == "dict" and "options" in spec:
        known = spec["options"]
        return next(filter(None, (wrong_value(f"{name}.{key}", own, known[key]) for key, own in value.items() if key in known)), "")
    return ""


def options(specs):
    """The variables of a role, as its meta/argument_specs.yml has them."""
    return specs["argument_specs"]["main"]["options"]


def wrong_kinds(values, specs):
    """A sentence for each of these values, in the order of the role's variables, that is of another kind than its variable."""
    asked = zip(options(specs).items(), values)
    return [wrong for wrong in (wrong_value(name, value, spec) for (name, spec), value in asked if value != "<none>") if wrong]


def unknown_variables(names, specs):
    """A sentence for each of these names that begins as a role's variables do and is none of any role."""
    known = [name for spec in specs for name in options(spec)]
    begins = {name.split("_")[0] + "_" for name in known}
    found = []
    for name in sorted(names):
        if name not in known and any(name.startswith(begin) for begin in begins):
            meant = difflib.get_close_matches(name, known, 1)
            found.append(f"no role has a variable {name}" + (f": {meant[0]} is meant?" if meant else ""))
    return found


class FilterModule:
    """What Ansible asks for."""

    def filters(self):
        return {"role_variables": lambda specs: list(options(specs)), "unknown_variables": unknown_variables, "wrong_kinds": wrong_kinds}
