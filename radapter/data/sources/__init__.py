"""Where pictures, texts and labels come from, a file a source. To add one: a file with the class of
its data section and a line in `registry.SOURCES`.

The class says in its `open` what the pictures are; what else code asks of a source, such as its
licence, has a default in `radapter.data.settings.Data`.
"""
