"""A run made from a configuration: the only package that joins the others."""

import os

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing to a user; read when it is imported
