"""What pyproject.toml cannot say: `configs/` is installed below the package, where no other
`configs` is in its way (`feedseg/runs/shipped.py` finds it there)."""

from setuptools import find_packages, setup

SHIPPED = "feedseg.shipped."

setup(
    packages=[
        *find_packages(include=["feedseg*"]),
        *(SHIPPED + name for name in find_packages(include=["configs*"])),
    ],
    package_dir={SHIPPED + "configs": "configs"},
)
