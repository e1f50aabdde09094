"""``repro prepare-data``: fetch a named corpus, look at any other text, and list what there is."""

from __future__ import annotations

from argparse import Namespace

from rich.console import Console

from repro_lib.cli.parser import text_name
from repro_lib.config import Config, project_root
from repro_lib.data import CORPORA, make_dataset, prepare_corpus


def prepare_data(options: Namespace, console: Console) -> int:
    """Fetch and check the corpus that was asked for, or list the named ones; returns the exit code."""
    if options.list:
        console.print(listed())
        return 0
    with console.status("preparing the text"):
        corpus = prepare_corpus(text_name(options.corpus, options.normalise))
        dataset = make_dataset(corpus, Config().train_split, Config().block_size)
    if notice := corpus.notice():
        console.print(notice)
    different, unigram = dataset.vocab_size, dataset.unigram_cross_entropy
    console.print(f"{corpus.name}: {len(corpus.text):,} characters, {different} different ones, SHA-256 {corpus.sha256}")
    if unseen := dataset.unseen:
        named = ", ".join(map(repr, unseen[:20])) + (", ..." if len(unseen) > 20 else "")
        console.print(f"{len(unseen)} character{'s occur' if len(unseen) > 1 else ' occurs'} in validation alone: {named}")
    console.print(f"scored on {dataset.windows.tokens:,} characters; unigram cross-entropy {unigram:.3f} nats")
    return 0


def listed() -> str:
    """The named corpora: what each is, in which language, how large, under which licence, and whether it is here."""
    lines = []
    for name, entry in CORPORA.items():
        here = "here" if (project_root() / "data" / f"{name}.txt").is_file() else "fetched when it is asked for"
        count, characters, different = entry["size"]
        size = f"{count / 1e6:.1f} MB, {characters:,} characters, {different} different ones"
        lines += [f"{name}: {entry['title']}", f"  {entry['language']}; {size}; {here}"]
        lines += [f"  Licence: {entry['licence']}", f"  Source: {entry['source']}"]
    return "\n".join(lines)
