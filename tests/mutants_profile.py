"""A pytest plugin for ``mutants.py``: one failing example is enough, nobody reads the smallest one."""

from hypothesis import Phase, settings

settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])
settings.load_profile("mutants")
