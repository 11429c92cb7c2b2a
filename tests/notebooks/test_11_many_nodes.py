import pytest
from notebook_pages import runs_whole


@pytest.mark.train
def test_notebook_11_runs_whole(tmp_path):
    runs_whole(__file__, tmp_path, trains="many_nodes")
