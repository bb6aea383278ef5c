// Compiled once so that every folder can reuse its precompiled header.
