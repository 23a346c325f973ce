"""The commands of `asyncflow`, in groups: serving, instances, operators' verbs, descriptions."""
