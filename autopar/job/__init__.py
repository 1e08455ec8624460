"""From words and files to one question: names looked up, what is not said filled in.

Imports the launchers and both packages below; prints nothing.
"""
