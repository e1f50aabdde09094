"""One file per question: numbers, a sentence, charts."""
