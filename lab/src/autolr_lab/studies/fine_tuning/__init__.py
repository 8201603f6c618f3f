"""Fine-tuning: is the peak that `find_peak` finds right for what generalises?

A trained network goes on to another task: a sentence encoder of 22 million parameters to telling which sentence answers
a question, a small GPT from one text to another. A grid of peak rates with the same schedule is the reference;
`find_peak` is judged by minibatches of the training and by minibatches of its own that nobody trains on, and a range
test suggests a rate. Losses are on data that neither the training nor any judge has seen.
"""
