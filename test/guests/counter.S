/*
 * A guest of one boot sector: counts passes, and in each writes the count into the first word of every page of a range,
 * in rising order. So at any moment the pages, read in order, hold one count up to some page and the count
 * before from there on; a page that is older was lost. Every 64th pass it prints a dot on the serial port. Where it is told
 * a sector of its disk, each pass ends with the count written there, word by word: its disk is of one moment with its memory.
 *
 *   0x7de8  u32  pages behind which it rests until the PC's timer ticks (18.2 times a second), its processor halted; 0: it never does
 *   0x7dec  u32  sector below 2^24 that takes the count, through the first IDE controller's ports; 0: none
 *   0x7df0  u32  number of pages (patched by whoever starts it)
 *   0x7df4  u32  idle turns between two pages: sets how fast memory gets dirty
 *   pages from 0x200000 on
 */
	.include "protected-mode.inc"
	movl burst, %esi
	xorl %ebx, %ebx
pass:
	incl %ebx
	movl $0x200000, %edi
	movl pages, %ecx
page:
	movl %ebx, (%edi)
	addl $4096, %edi
	movl idle, %eax
idle_turn:
	testl %eax, %eax
	jz next
	decl %eax
	pause
	jmp idle_turn
next:
	decl %esi
	jnz rested
	movl burst, %esi
	sti
	hlt
	cli
rested:
	decl %ecx
	jnz page
	movl sector, %ecx
	jecxz written
	movw $0x1f2, %dx        /* one sector */
	movb $1, %al
	outb %al, %dx
	movl %ecx, %eax
	incw %dx                /* its address, in four ports */
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
not_ready:
	inb %dx, %al
	andb $0x88, %al         /* busy, asks for data */
	cmpb $0x08, %al
	jne not_ready
	movl $128, %ecx
	movl %ebx, %eax
	movw $0x1f0, %dx
word:
	outl %eax, %dx
	loop word
	movw $0x1f7, %dx
busy:
	inb %dx, %al
	testb $0x80, %al
	jnz busy
written:
	testb $63, %bl
	jnz pass
	movw $0x3f8, %dx
	movb $'.', %al
	outb %al, %dx
	jmp pass

	.include "protected-mode-tables.inc"

	.org 0x1e8
burst:	.long 0
sector:	.long 0
pages:	.long 1024
idle:	.long 0
	.org 0x1fe
	.word 0xaa55
