import shutil
from cprd_pipeline.reporting.run import run
def test_shot(made, settings_of):
    s=settings_of(made, gallery={'queries': 2, 'shown': 8}); print(run(s))
    shutil.copy(s.output, "/tmp/small_report.html")
