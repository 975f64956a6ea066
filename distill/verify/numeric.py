from distill.verify.math import check_math


def verify(prompt, answer):
    return check_math(answer, prompt.answer)
