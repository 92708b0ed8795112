"""Completion scripts, made of the command tree. Verbs and flags are in the script, and the names of models come from
the store's `names` file, which the shell itself reads: TAB never starts Python.
"""

from __future__ import annotations

import shlex

from trims_cli import app, tree
from trims_cli.settings import FLAGS

SHELLS = ("bash", "zsh", "fish")
_DEFAULT_STORE = "${TRIMS_STORE:-${XDG_DATA_HOME:-$HOME/.local/share}/trims}"
_SHARED = [*(name for flag in FLAGS for name in flag.names), "-h", "--help"]
_WORDS = {"completion": list(SHELLS), "config": ["get", "set", "unset", "check", "path"]}
_FILES = ("import", "export", "init", "exec")
_PLACES = ["host", "gpu", *(f"gpu:{n}" for n in range(8))]  # how many there are is not known without asking a driver
_VALUES = {
    "evict:--to": ["host", "disk"], "exec:--to": ["auto", "host", "disk"], "--to": _PLACES, "--on": _PLACES,
    "--gpu": ["auto", "none"], "--demote-to": ["disk", "host"], "--fallback": ["native", "fail"],
    "--print-env": ["sh", "slurm", "json"], "--format": ["table", "tsv", "json", "jsonl"],
    "--color": ["auto", "always", "never"],
}  # fmt: skip
"""What the value of a flag may be, where that is a choice: of one command's flag, or of a flag wherever it is taken."""


def script(shell: str, store: str | None) -> str:
    """The script. store: the store of the configuration file, where the shell could not find it out."""
    where = f"${{TRIMS_STORE:-{shlex.quote(store)}}}" if store else _DEFAULT_STORE
    if shell == "fish":
        return _fish(store)
    template = _BASH if shell == "bash" else _ZSH
    values = [n for n in _value_flags() if n not in ("--store", "-o", "--output", "--warm")]
    return (
        template.replace("@VERBS@", " ".join([*app.top_words(), *app.ALIASES]))
        .replace("@GROUPS@", "|".join(word for word in app.top_words() if app.subverbs(word)))
        .replace("@SHARED@", " ".join([*_SHARED, "--version"]))
        .replace("@CASES@", "".join(_case(command) for command in tree.commands()))
        .replace("@VALUES@", "|".join(values))
        .replace("@CHOICES@", "".join(_choice(shell, flag) for flag in _VALUES))
        .replace("@STORE@", where)
    )


def _value_flags() -> list[str]:
    """Every flag that takes a value: the word behind it is no verb and no model."""
    names = {name for flag in FLAGS if flag.metavar for name in flag.names}
    for command in tree.commands():
        names |= {name for p in command.options if not p.switch for name in p.names}
    # -o and its like are switches of one command and take a value in another: only long ones are told apart
    return sorted(name for name in names if name.startswith("--") or name == "-o")


def _choice(shell: str, flag: str) -> str:
    """The branch that offers the values of a flag; the flag of one command comes before the same of all."""
    pattern, words = flag if ":" in flag else f"*:{flag}", " ".join(_VALUES[flag])
    if shell == "bash":
        return f'    {pattern}) COMPREPLY=($(compgen -W "{words}" -- "$cur")); kind=done ;;\n'
    return f"    {pattern}) compadd -- {words}; return ;;\n"


def _words(command: tree.Command) -> list[str]:
    if command.name == "help":
        return [*app.top_words(), "places", "exit-codes", "env", "filters"]
    if command.name == "policy":
        from trims.residency.policies import ALIASES, POLICIES

        return [*POLICIES, *ALIASES]
    return command.seconds or _WORDS.get(command.name, [])


def _case(command: tree.Command) -> str:
    own = [name for p in command.options for name in p.names]
    name = f'"{command.name}"' if " " in command.name else command.name
    alias = "|".join([name, *(a for a, verb in app.ALIASES.items() if verb == command.name)])
    flags = " ".join([*own, *_SHARED])
    kind = "models" if command.takes_models else "files" if command.name in _FILES else "words"
    if command.name == "export":
        kind = "models"
    return f'    {alias}) flags="{flags}"; kind={kind}; words_="{" ".join(_words(command))}" ;;\n'


_BASH = """\
# bash completion for trims: eval "$(trims completion bash)", or save it in
# ~/.local/share/bash-completion/completions/trims
_trims_names() {
  local name cur=$1
  [ -r "$2/names" ] || return 0
  while IFS= read -r name; do
    case $cur in *:*) ;; *) name=${name%:latest} ;; esac
    case $name in "$cur"*) COMPREPLY+=("$name") ;; esac
  done < "$2/names"
}
_trims() {
  local line=${COMP_LINE:0:COMP_POINT} words cur prev verb="" word skip="" store=@STORE@ flags="" kind=words words_=""
  read -r -a words <<< "$line"
  case $line in *[[:space:]]) words+=("") ;; esac
  cur=${words[${#words[@]}-1]}
  prev=${words[${#words[@]}-2]}
  for word in "${words[@]:1:${#words[@]}-2}"; do
    case $skip in
      "") ;;
      --store) store=$word; skip=""; continue ;;
      *) skip=""; continue ;;
    esac
    case $word in
      --store=*) store=${word#--store=} ;;
      --warm) case $verb in start|exec) skip=$word ;; esac ;;
      --store|--output|-o|@VALUES@) skip=$word ;;
      -*) ;;
      *) case $verb in "") verb=$word ;; @GROUPS@) verb="$verb $word" ;; esac ;;
    esac
  done
  COMPREPLY=()
  case $verb in
    "") flags="@SHARED@"; words_="@VERBS@" ;;
@CASES@  esac
  case $verb:$skip in
    *:) ;;
    *:--store|*:--socket|*:--output|*:-o|*:--report)
      COMPREPLY=($(compgen -f -- "$cur")); compopt -o filenames 2>/dev/null; return ;;
    *:--warm|*:--require) _trims_names "$cur" "$store"; kind=done ;;
@CHOICES@    *) return ;;
  esac
  case $kind:$cur in
    done:*) ;;
    *:-*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
    models:*) _trims_names "$cur" "$store" ;;
    files:*) COMPREPLY=($(compgen -f -- "$cur")); compopt -o filenames 2>/dev/null ;;
    words:*) COMPREPLY=($(compgen -W "$words_" -- "$cur")) ;;
  esac
  case $cur:$COMP_WORDBREAKS in
    *:*:*)
      local head=${cur%"${cur##*:}"} i
      for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$head"}; done ;;
  esac
}
complete -F _trims trims
"""

_ZSH = """\
#compdef trims
# zsh completion for trims: save it as _trims in a directory of $fpath
_trims() {
  emulate -L zsh
  local verb="" word skip="" store="@STORE@" flags="" kind=words words_="" cur=${words[CURRENT]}
  local -a names
  for word in ${words[2,CURRENT-1]}; do
    case $skip in
      "") ;;
      --store) store=$word; skip=""; continue ;;
      *) skip=""; continue ;;
    esac
    case $word in
      --store=*) store=${word#--store=} ;;
      --warm) case $verb in start|exec) skip=$word ;; esac ;;
      --store|--output|-o|@VALUES@) skip=$word ;;
      -*) ;;
      *) case $verb in "") verb=$word ;; @GROUPS@) verb="$verb $word" ;; esac ;;
    esac
  done
  case $verb in
    "") flags="@SHARED@"; words_="@VERBS@" ;;
@CASES@  esac
  case $verb:$skip in
    *:) ;;
    *:--store|*:--socket|*:--output|*:-o|*:--report) _files; return ;;
    *:--warm|*:--require) kind=models ;;
@CHOICES@    *) return ;;
  esac
  case $kind:$cur in
    *:-*) compadd -- ${=flags} ;;
    models:*)
      [[ -r $store/names ]] || return
      names=(${(f)"$(<$store/names)"})
      [[ $cur == *:* ]] || names=(${names%:latest})
      compadd -- $names ;;
    files:*) _files ;;
    words:*) compadd -- ${=words_} ;;
  esac
}
if [[ $funcstack[1] == _trims ]]; then _trims "$@"; else compdef _trims trims; fi
"""


def _fish(store: str | None) -> str:
    default = (
        f"set -q TRIMS_STORE; and echo $TRIMS_STORE; or echo {shlex.quote(store)}"
        if store
        else "set -q TRIMS_STORE; and echo $TRIMS_STORE; or begin\n"
        "    set -q XDG_DATA_HOME; and echo $XDG_DATA_HOME/trims; or echo $HOME/.local/share/trims\n  end"
    )
    lines = [
        "# fish completion for trims: save it as ~/.config/fish/completions/trims.fish",
        f"function __trims_store\n  {default}\nend",
        "function __trims_names\n  set -l file (__trims_store)/names\n  test -r $file; or return\n"
        "  while read -l name\n    string replace -r ':latest$' '' -- $name\n  end < $file\nend",
        "complete -c trims -f",
    ]
    no_verb = "__fish_use_subcommand"
    lines += [_fish_flag("", "", flag.names, flag.metavar, flag.help) for flag in FLAGS]
    for command in tree.commands():
        seen = _fish_seen(command)
        group, _, word = command.name.rpartition(" ")
        where = f"'{_fish_from([group])}; and not {_fish_from(app.subverbs(group))}'" if group else no_verb
        lines.append(f"complete -c trims -n {where} -a {word} -d {_fish_quote(command.help)}")
        if command.takes_models:
            lines.append(f"complete -c trims -n '{seen}' -a '(__trims_names)'")
        elif command.name in _FILES:
            lines.append(f"complete -c trims -n '{seen}' -F")
        words = [] if command.seconds else _words(command)
        lines += [f"complete -c trims -n '{seen}' -a {word}" for word in words]
        lines += [
            _fish_flag(seen, command.name, p.names, "" if p.switch else p.metavar, p.help) for p in command.options
        ]
    return "\n".join(lines) + "\n"


def _fish_from(words: list[str]) -> str:
    return f"__fish_seen_subcommand_from {' '.join(words)}"


def _fish_seen(command: tree.Command) -> str:
    """The condition for being behind this verb: `trace show` is not `show`."""
    group, _, word = command.name.rpartition(" ")
    others = [top for top in app.top_words() if word in app.subverbs(top) and top != group]
    seen = "; and ".join(_fish_from([part]) for part in (group, word) if part)
    return seen + (f"; and not {_fish_from(others)}" if others else "")


def _fish_flag(seen: str, verb: str, names: tuple[str, ...], metavar: str, help: str) -> str:
    words = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in names]
    condition = f"-n '{seen}' " if seen else ""
    choices = next((_VALUES[key] for n in names for key in (f"{verb}:{n}", n) if key in _VALUES), None)
    value = f" -x -a {_fish_quote(' '.join(choices))}" if choices and metavar else " -r" if metavar else ""
    return f"complete -c trims {condition}{' '.join(words)}{value} -d {_fish_quote(help)}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
