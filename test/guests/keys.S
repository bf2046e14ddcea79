/*
 * A guest of one boot sector that waits for a key, again and again, and does what it says:
 *
 *   p  powers off (ACPI, PM1a control at 0x604: where the firmware puts it on pc and q35)     s  sleeps (S3)
 *   r  resets itself (the keyboard controller's line)                                          c  panics (pvpanic at 0x505)
 *   w  writes the first sector of its disk's second track, by the firmware
 */
	.code16
	.globl _start
_start:
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	movb %dl, drive
	movw $0x3f8, %dx
	movb $'!', %al
	outb %al, %dx
wait_key:
	xorw %ax, %ax
	int $0x16
	movw $0x604, %dx
	cmpb $'p', %al
	jne 1f
	movw $0x2000, %ax
	outw %ax, %dx
1:	cmpb $'s', %al
	jne 2f
	movw $0x2400, %ax
	outw %ax, %dx
2:	cmpb $'r', %al
	jne 3f
	movb $0xfe, %al
	outb %al, $0x64
3:	cmpb $'c', %al
	jne 4f
	movw $0x505, %dx
	movb $1, %al
	outb %al, %dx
4:	cmpb $'w', %al
	jne wait_key
	movw $0x0301, %ax
	movw $0x0001, %cx
	movb $1, %dh
	movb drive, %dl
	movw $0x7c00, %bx
	int $0x13
	jmp wait_key
drive:	.byte 0
	.org 0x1fe
	.word 0xaa55
