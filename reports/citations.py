"""Sources as BibTeX entries."""

import re
from collections.abc import Iterable, Sequence

from reports.published import Published, Source

# BibTeX hands a field's text to LaTeX, where these mean something; braces also end the field.
SPECIAL = re.compile(r"([&%$#_{}])")


def sources_of(rows: Iterable[Published]) -> tuple[Source, ...]:
    """The distinct sources of these rows, by their short names."""
    found = {row.source.short: row.source for row in rows}
    return tuple(found[short] for short in sorted(found))


def bibtex(sources: Sequence[Source]) -> str:
    """A BibTeX `@misc` entry for each source; the key is the short name in lower case, without spaces."""
    return "\n".join(_entry(source) for source in sources)


def _entry(source: Source) -> str:
    fields = {
        "title": f"{{{_plain(source.title)}}}",
        "author": _authors(source.authors),
        "year": source.year,
        "eprint": source.arxiv,
        "archivePrefix": "arXiv" if source.arxiv else "",
        "url": source.url or (f"https://arxiv.org/abs/{source.arxiv}" if source.arxiv else ""),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{_key(source)},", *lines, "}"]) + "\n"


def _key(source: Source) -> str:
    return re.sub(r"[^a-z0-9]+", "-", source.short.lower()).strip("-")


def _authors(authors: str) -> str:
    """Surnames with commas, as our files write them, to BibTeX's `A and B and others`."""
    names = authors.removesuffix(" et al.").split(", ")
    others = ["others"] if authors.endswith(" et al.") else []
    return " and ".join([_plain(f"{{{name}}}" if " " in name else name, keep="{}") for name in names if name] + others)


def _plain(text: str, *, keep: str = "") -> str:
    return SPECIAL.sub(lambda found: found[0] if found[0] in keep else "\\" + found[0], text)
