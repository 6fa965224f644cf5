"""Failed assertions of playbooks show both sides, as those of tests do."""

import pytest

pytest.register_assert_rewrite("tests.server.core.playbook")
