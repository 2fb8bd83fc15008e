"""Readers of files that nobody vouches for: no code runs, no link is followed, memory is bounded.

files         files that a user names, and JSON
names         paths of archive members
zips, tars    archives
compression   compressed streams
pickles       pickles, read by a machine that cannot import or call
"""
