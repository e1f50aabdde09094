"""Which earlier models a configuration needs."""

from repro_lib.config import Config
from repro_lib.config.members import members, needed

CORPUS = "c" * 64


def config(**changes: object) -> Config:
    return Config.for_model("charlm", "smoke", **{"trials": 4} | changes)


def digest(**changes: object) -> str:
    return config(**changes).sha256(CORPUS)


def test_ensembles_are_nested_and_their_first_member_is_the_cell_itself() -> None:
    two, five = (members(config(ensemble=k)) for k in (2, 5))
    assert [member.sha256(CORPUS) for member in five] == [digest(seed=42 + 1000 * m) for m in range(5)]
    assert five[:2] == two
    assert {member.trials for member in five} == {4}
    # Beside another remedy it is an ensemble of models with that.
    assert members(config(ensemble=2, ema_decay=0.9))[0].sha256(CORPUS) == digest(ema_decay=0.9)
    seeds = [{member.seed + trial for member in five} for trial in range(4)]
    assert len(set.union(*seeds)) == 5 * 4, "no two trials share a member"


def test_teachers_are_plain_and_each_trial_has_its_own_an_anchor_is_one_for_all() -> None:
    taught = config(distill_weight=0.5, teachers=2, entropy_weight=0.1)
    assert [member.sha256(CORPUS) for member in members(taught)] == [digest(seed=1042), digest(seed=2042)]
    assert {(member.role, member.trial) for member in needed(taught)} == {("teacher", None)}
    (anchor,) = needed(config(anchor_weight=0.5, label_smoothing=0.1))
    assert (anchor.config.sha256(CORPUS), anchor.config.trials, anchor.trial) == (digest(seed=1042), 1, 1)
    (start,) = needed(config(warm_share=0.75))
    assert (start.role, start.config.sha256(CORPUS), start.trial) == ("start", digest(seed=1042, text_share=0.75), 1)


def test_most_configurations_need_none() -> None:
    for changes in ({}, {"ema_decay": 0.9}, {"codistill_weight": 1.0}, {"text_share": 0.5}, {"distill_weight": 0.0}):
        assert members(config(**changes)) == []


def test_what_a_member_changes_nobody_chose_by_hand() -> None:
    plain, other = members(config(ensemble=2, max_iters=5))
    assert (plain.sources["ensemble"], other.sources["seed"], other.sources["max_iters"]) == ("base", "arm", "explicit")
    assert (other.profile, other.remedies) == ("smoke", ())
