"""Is it good? Each file has one measure or one part of the report; `run` is `mdmspeech eval` and
lists the parts in order.

Of answers: `judging`, `claims`, `said_items`, `said_times`, `hearing`. Of speech: `recogniser`,
`scoring`, `mos`, `silence`, `speaking`, `user_voice`, `reading`. Of the codec: `codec`,
`griffin_lim`. Of time: `latency`. Written down by `report`, `tables`, `plots`, `provenance`;
`samples` is what a training run shows.
"""
