"""Configuration: schema, loading of YAML files and overrides, checks. Imports no torch."""

from vision.config.load import LoadedConfig, load_config, save_config
from vision.config.schema import Config
from vision.errors import ConfigError

__all__ = ["Config", "ConfigError", "LoadedConfig", "load_config", "save_config"]
