"""Playbooks explain what they saw, as tests do."""

import pytest

pytest.register_assert_rewrite("tests.server.core.playbook")
