"""The version of the package."""

VERSION = "0.12.2"
