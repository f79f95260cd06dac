"""The stage `score-teacher`: buys the scores that the store lacks, then sorts the candidates by them."""

from collections.abc import Sequence

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models.teachers import teacher_adapter, teacher_fingerprint
from cprd_pipeline.progress import announce, progress_bar
from cprd_pipeline.scoring.candidates import open_candidates, read_part, read_parts
from cprd_pipeline.scoring.errands import Errand, describe, keys_of
from cprd_pipeline.scoring.pairs import PairSpace
from cprd_pipeline.scoring.plan import make_plan, wanted_pairs
from cprd_pipeline.scoring.purchase import Shop
from cprd_pipeline.scoring.rankings import Ranker, rules_of
from cprd_pipeline.scoring.report import report_on_rankings, report_on_shard
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch
from cprd_pipeline.store.scores import ScoreStore, default_store


def run(settings: ScoreSettings) -> StageReport:
    """Score every pair of the candidates, and of their positives, that was never scored; write the rankings.

    With `shard` only the pairs of that shard's images are scored, and no rankings are written.

    Raises:
        StoreError: The candidates are of another corpus, or the store is damaged.
        ModelError: The teacher cannot be loaded, or a score is not finite.
        CorpusError: An image is not what was prepared.
    """
    corpus = Corpus(settings.corpus)
    candidates = open_candidates(settings, corpus)
    fingerprint = teacher_fingerprint(settings.teacher)
    store = ScoreStore(settings.store or default_store())
    shop = Shop(settings, corpus, PairSpace(corpus.images, corpus.captions), store, fingerprint, Stopwatch())
    if settings.shard:
        errands = _plan(shop, candidates)
        return report_on_shard(shop, errands, shop.buy(errands))
    inputs = {"corpus": corpus.digest, "candidates": candidates.manifest.digest, "teacher": fingerprint}
    writer = OutputWriter(settings.output, "rankings", rules_of(settings, teacher_adapter(settings.teacher).roles), inputs)
    # Without dropping them, the margin only counts false negatives: it shapes the report alone.
    margin = {"false_negative_margin": settings.false_negative_margin}
    if (earlier := earlier_report(settings.report, writer, margin)) is not None:
        return earlier
    errands = _plan(shop, candidates, all_known=writer.is_current())
    purchase = shop.buy(errands)
    if not writer.is_current():
        with shop.watch.measure("ranking"):
            _rank(shop, candidates, errands, writer)
        writer.finish()
    return conclude(report_on_rankings(shop, errands, purchase, candidates), settings.report, writer)


def _plan(shop: Shop, candidates: InputFolder, *, all_known: bool = False) -> list[Errand]:
    """What is to be scored, said on the way.

    Args:
        shop: Of the run.
        candidates: The candidates folder.
        all_known: The rankings are whole, so they hold every score, and only the report is made again.
    """
    errands = []
    space = shop.space
    for key, directions in keys_of(teacher_adapter(shop.settings.teacher).roles).items():
        with shop.watch.measure("planning"):
            wanted, requested = wanted_pairs(read_parts(candidates, space, directions), space)
            known = wanted
            if not all_known:
                known = shop.store.known(shop.fingerprint, key, space.images.digests, space.captions.digests).codes
            errand = Errand(key, directions, make_plan(wanted, requested, known, space, shop.settings.share))
        announce(describe(errand))
        errands.append(errand)
    return errands


def _rank(shop: Shop, candidates: InputFolder, errands: Sequence[Errand], writer: OutputWriter) -> None:
    """Write the parts that a killed run did not finish, from what the store now says."""
    parts = [name for errand in errands for direction in errand.directions for name in candidates.part_names(f"{direction}-")]
    with progress_bar("ranking", len(parts), "parts", sum(map(writer.has, parts))) as bar:
        for errand in errands:
            known = shop.store.known(shop.fingerprint, errand.key, shop.space.images.digests, shop.space.captions.digests)
            ranker = Ranker(shop.space, known, shop.settings)
            for direction in errand.directions:
                for name in candidates.part_names(f"{direction}-"):
                    if not writer.has(name):
                        writer.write_table(name, ranker.table(read_part(candidates, shop.space, direction, name)))
                        bar.advance()
