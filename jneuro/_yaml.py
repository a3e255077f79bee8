"""YAML as people write it."""

import re
from typing import ClassVar

import yaml

__all__ = ["Loader"]


class Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers people write (`1e-3`), without dates and without silently repeated keys."""

    yaml_implicit_resolvers: ClassVar = {
        first: [r for r in resolvers if r[0] not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem=f"the key at line {line} is not a word; text with braces needs quotes"
                )
            if (name := self.construct_object(key, deep=True)) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {name!r} stands twice, again at line {line}")
            seen.add(name)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
