package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// The scripts ask the program itself for what could come next, so they know what
// it knows. It answers with lines "word<TAB>meaning", and nothing where a file
// belongs.
var completionScripts = map[string]string{
	"bash": `# bash completion for shoal: source it, or put it into ~/.local/share/bash-completion/completions/shoal
_shoal() {
	local line
	COMPREPLY=()
	while IFS= read -r line; do
		COMPREPLY+=("${line%%$'\t'*}")
	done < <(shoal __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _shoal shoal
`,
	"zsh": `#compdef shoal
# zsh completion for shoal: put it as _shoal into a folder of $fpath, or source it
_shoal() {
	local line tab=$'\t'
	local -a found
	while IFS= read -r line; do
		found+=("${${line%%$tab*}//:/\\:}:${line#*$tab}")
	done < <(shoal __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
	if (( ${#found} )); then
		_describe -V shoal found
	else
		_files
	fi
}
if [ "$funcstack[1]" = "_shoal" ]; then
	_shoal "$@"
else
	compdef _shoal shoal
fi
`,
	"fish": `# fish completion for shoal: put it into ~/.config/fish/completions/shoal.fish
function __shoal_complete
	set -l words (commandline -opc) (commandline -ct)
	shoal __complete -- $words[2..-1] 2>/dev/null
end
complete -c shoal -e
complete -c shoal -a '(__shoal_complete)'
`,
	"powershell": `# PowerShell completion for shoal: put it into $PROFILE
Register-ArgumentCompleter -Native -CommandName shoal -ScriptBlock {
	param($wordToComplete, $commandAst, $cursorPosition)
	$words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { $_.ToString() })
	if ($wordToComplete -eq '') { $words += '""' }
	shoal __complete -- @words 2>$null | ForEach-Object {
		$word, $meaning = $_ -split "` + "`t" + `", 2
		[System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $meaning)
	}
}
`,
}

func (a *app) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes shoal's commands and flags in a shell",
		ArgsUsage: "bash|zsh|fish|powershell",
		Description: "The script asks shoal what could come next. In bash, source it in ~/.bashrc; each script\n" +
			"begins with where to put it.\n\n" +
			"source <(shoal completion bash)\n" +
			"shoal completion zsh\n" +
			"shoal completion fish\n" +
			"shoal completion powershell",
		Action: a.completion,
	}
}

func (a *app) completion(cc *cli.Context) error {
	args, err := arguments(cc, 1, 1)
	if err != nil {
		return err
	}
	script, ok := completionScripts[args[0]]
	if !ok {
		return usagef("there is no completion for %q; there is for bash, zsh, fish and powershell", args[0])
	}
	_, err = fmt.Fprint(a.stdout, script)
	return err
}

// completeCommand is what the scripts call.
func (a *app) completeCommand() *cli.Command {
	return &cli.Command{
		Name:            "__complete",
		Hidden:          true,
		SkipFlagParsing: true,
		Action: func(cc *cli.Context) error {
			args := cc.Args().Slice()
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
			w := bufio.NewWriter(a.stdout)
			for _, c := range candidates(a.cli(), args) {
				_, _ = w.WriteString(c.word + "\t" + c.meaning + "\n") // Flush tells
			}
			return w.Flush()
		},
	}
}

// A candidate is a word that could come next.
type candidate struct{ word, meaning string }

// candidates returns what the last of the words could become. It returns nothing
// where a file belongs, or where shoal cannot know.
func candidates(c *cli.App, words []string) (out []candidate) {
	last := ""
	if n := len(words); n > 0 {
		last, words = strings.Trim(words[n-1], `"`), words[:n-1]
	}
	cmds, flags := c.Commands, c.Flags
	var cmd *cli.Command
	used := map[string]bool{}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "--":
			return nil
		case len(w) > 1 && w[0] == '-':
			name, _, hasValue := strings.Cut(strings.TrimLeft(w, "-"), "=")
			used[name] = true
			if f := lookup(flags, name); f != nil && takesValue(f) && !hasValue {
				if i++; i == len(words) {
					return nil // the value comes
				}
			}
		case len(cmds) > 0 && find(cmds, w) != nil:
			cmd = find(cmds, w)
			cmds, flags = cmd.Subcommands, cmd.Flags
		case cmd == nil && isTicket(w):
			cmd = find(c.Commands, "get")
			cmds, flags = nil, cmd.Flags
		}
	}
	add := func(word, meaning string) {
		if strings.HasPrefix(word, last) {
			out = append(out, candidate{word, strings.ReplaceAll(meaning, "\n", " ")})
		}
	}
	if strings.HasPrefix(last, "-") {
		if strings.Contains(last, "=") {
			return nil
		}
		for _, f := range flags {
			d, ok := f.(cli.DocGenerationFlag)
			if name := f.Names()[0]; ok && (!used[name] || repeats(f)) {
				_, usage := flagUsage(d)
				add("--"+name, usage)
			}
		}
		add("--help", "show help")
		return out
	}
	for _, sub := range cmds {
		if !sub.Hidden {
			add(sub.Name, sub.Usage)
		}
	}
	if cmd != nil && cmd.Name == "completion" {
		for _, shell := range []string{"bash", "fish", "powershell", "zsh"} {
			add(shell, "print the script for "+shell)
		}
	}
	return out
}

// repeats reports whether a flag may be given more than once.
func repeats(f cli.Flag) bool {
	_, ok := f.(*cli.StringSliceFlag)
	return ok
}
