"""Templates such as `"{Path}"` or `"{patient}/{study}"`: text with columns in braces."""

from __future__ import annotations

import re

import polars as pl

_FIELD = re.compile(r"\{([^{}]+)\}")


def fields(template: str) -> list[str]:
    """The columns that a template names, in order, each once."""
    return list(dict.fromkeys(_FIELD.findall(template)))


def literals(template: str) -> list[str]:
    """The text around a template's fields; as many pieces as `_FIELD` has matches, and one."""
    return _FIELD.split(template)[::2]


def template_regex(template: str) -> re.Pattern[str]:
    """Matches the paths that a template can make; a field holds no slash, and is the same wherever it stands."""
    pattern, seen = "", {}
    for text, name in zip(literals(template), [*_FIELD.findall(template), None], strict=True):
        pattern += re.escape(text)
        if name is not None:
            pattern += f"(?P=f{seen[name]})" if name in seen else f"(?P<f{len(seen)}>[^/]+)"
            seen.setdefault(name, len(seen))
    return re.compile(pattern)


def fill(template: str, *, skip_blanks: bool = False) -> pl.Expr:
    """The template's text for each row: null when any field is blank, or with `skip_blanks` only when all are."""
    names = _FIELD.findall(template)
    columns = [pl.col(name).fill_null("") if skip_blanks else pl.col(name) for name in names]
    text = pl.concat_str([part for pair in zip(map(pl.lit, literals(template)), [*columns, pl.lit("")], strict=True)
                          for part in pair])
    if not skip_blanks:
        return text
    whole = text.str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(~pl.all_horizontal(pl.col(name).is_null() for name in names) & (whole != "")).then(whole)
