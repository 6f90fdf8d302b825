package main

import (
	"strings"

	"github.com/mdp/qrterminal/v3"
)

// qrText returns a ticket as a QR code of lines of text, for people with a camera.
// It is right on a dark terminal. A light one shows it inverted, which most programs
// of cameras take as well; colours would do for both, but not with NO_COLOR.
func qrText(ticket string) string {
	var b strings.Builder
	qrterminal.GenerateWithConfig(ticket, qrterminal.Config{
		Level: qrterminal.L, Writer: &b, HalfBlocks: true, QuietZone: 2,
		BlackChar: qrterminal.BLACK_BLACK, WhiteChar: qrterminal.WHITE_WHITE,
		BlackWhiteChar: qrterminal.BLACK_WHITE, WhiteBlackChar: qrterminal.WHITE_BLACK,
	})
	return b.String()
}

// qr draws a ticket, unless the user wants quiet.
func (a *app) qr(ticket string) {
	for line := range strings.Lines(qrText(ticket)) {
		a.sayf("%s", strings.TrimSuffix(line, "\n"))
	}
}
