"""The command `study`: from the students of all arms and seeds to tables, findings and the data of the plots."""

from dataclasses import asdict

from cprd_pipeline.errors import StoreError
from cprd_pipeline.evaluation.study.arms import arm_results
from cprd_pipeline.evaluation.study.bands import band_results
from cprd_pipeline.evaluation.study.comparison import compare_arms
from cprd_pipeline.evaluation.study.cosines import cosine_results
from cprd_pipeline.evaluation.study.evaluation import evaluate_arms, evaluate_chosen
from cprd_pipeline.evaluation.study.findings import findings_of
from cprd_pipeline.evaluation.study.markdown import markdown
from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.evaluation.study.shapes import EDGES, Shape, normal_shares, shape_of
from cprd_pipeline.evaluation.study.students import NEXT, open_students
from cprd_pipeline.evaluation.study.terminal import study_rows
from cprd_pipeline.store.atomic import write_bytes
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import StageReport, Stopwatch


def run(settings: StudySettings) -> StageReport:
    """Evaluate all students, compare the arms, write the report and the Markdown."""
    watch = Stopwatch()
    students = open_students(settings)
    shapes = _shapes(settings)
    with watch.measure("evaluating"):
        evaluated, chosen = evaluate_arms(settings), evaluate_chosen(settings)
    with watch.measure("comparing"):
        cosines = cosine_results(students)
        means = {arm: one["by_seed"] for arm, one in cosines.items()}
        comparisons = compare_arms(settings, evaluated, means)
    with watch.measure("orders"):
        bands = band_results(settings, evaluated)
    results = arm_results(settings, evaluated, chosen) | {
        "split": evaluated.settings.split,
        "seeds": list(settings.seeds),
        "reference": settings.reference,
        "comparisons": [asdict(one) for one in comparisons],
        "findings": findings_of(settings, comparisons, shapes, bands),
        "distributions": {name: asdict(one) for name, one in shapes.items()}
        | {"edges": EDGES.round(6).tolist(), "normal": normal_shares(), "student_name": evaluated.settings.reranked},
        "bands": bands,
        "cosines": cosines,
    }
    write_bytes(settings.markdown, markdown(settings, results, comparisons).encode())
    table = study_rows(settings, results, comparisons)
    return StageReport("study", settings.as_json(), results, table, watch.seconds).save(settings.report)


def _shapes(settings: StudySettings) -> dict[str, Shape]:
    """Of both sides of the same random pairs."""
    try:
        table = InputFolder(settings.random_pairs, "rankings").tables("")
    except StoreError as error:
        raise StoreError(error.found, expected=error.expected, do=NEXT) from None
    columns = {"teacher": "teacher_scores", "student": "similarities"}
    return {name: shape_of(table[column].combine_chunks().flatten().to_numpy()) for name, column in columns.items()}
