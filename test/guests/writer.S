/*
 * A guest of one boot sector that writes to its disk: at each tick of the PC's timer (18.2 a second) so many pieces of 128 KiB, one
 * behind the other over a range, round and round, in bytes that do not pack. Its disk is the first IDE controller's.
 *
 *   0x7de8  u32  pieces that it writes at a tick
 *   0x7dec  u32  first sector of the range, below 2^24
 *   0x7df0  u32  pieces in the range
 */
	.include "protected-mode.inc"
	movl $1, %ebx
	movl first, %edi
	movl pieces, %ebp
	movl burst, %esi
piece:
	decl %esi
	jns write
	movl burst, %esi
	sti
	hlt
	cli
	jmp piece
write:
	movw $0x1f2, %dx
	xorb %al, %al           /* 256 sectors */
	outb %al, %dx
	movl %edi, %eax
	incw %dx                /* their address, in four ports */
	outb %al, %dx
	shrl $8, %eax
	incw %dx
	outb %al, %dx
	shrl $8, %eax
	incw %dx
	outb %al, %dx
	movb $0xe0, %al
	incw %dx
	outb %al, %dx
	movb $0x30, %al         /* write */
	incw %dx
	outb %al, %dx
	pushl %edi
	movl $256, %edi
sector:
	movw $0x1f7, %dx
not_ready:
	inb %dx, %al
	andb $0x88, %al         /* busy, asks for data */
	cmpb $0x08, %al
	jne not_ready
	movl $128, %ecx
	movw $0x1f0, %dx
word:
	imull $1664525, %ebx, %ebx
	addl $1013904223, %ebx
	movl %ebx, %eax
	shrl $11, %eax          /* its low bits repeat soon */
	xorl %ebx, %eax
	outl %eax, %dx
	loop word
	decl %edi
	jnz sector
	movw $0x1f7, %dx
busy:
	inb %dx, %al
	testb $0x80, %al
	jnz busy
	popl %edi
	addl $256, %edi
	decl %ebp
	jnz piece
	movw $0x3f8, %dx
	movb $'.', %al
	outb %al, %dx
	movl first, %edi
	movl pieces, %ebp
	jmp piece

	.include "protected-mode-tables.inc"

	.org 0x1e8
burst:	.long 1
first:	.long 2048
pieces:	.long 64
	.org 0x1fe
	.word 0xaa55
