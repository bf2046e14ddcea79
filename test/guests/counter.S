/*
 * A guest of one boot sector: counts passes, and in each writes the count into the first word of every page of a range,
 * in rising order, without pause. So at any moment the pages, read in order, hold one count up to some page and the count
 * before from there on; a page that is older was lost. Every 64th pass it prints a dot on the serial port.
 *
 *   0x7df0  u32  number of pages (patched by whoever starts it)
 *   0x7df4  u32  idle turns between two pages: sets how fast memory gets dirty
 *   pages from 0x200000 on
 */
	.code16
	.globl _start
_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $0x7c00, %sp
	inb $0x92, %al          /* A20 */
	orb $2, %al
	outb %al, $0x92
	lgdtl gdt_pointer
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x08, $protected

	.code32
protected:
	movw $0x10, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x7c00, %esp
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
	decl %ecx
	jnz page
	testb $63, %bl
	jnz pass
	movw $0x3f8, %dx
	movb $'.', %al
	outb %al, %dx
	jmp pass

	.align 8
gdt:
	.quad 0
	.quad 0x00cf9a000000ffff
	.quad 0x00cf92000000ffff
gdt_pointer:
	.word 23
	.long gdt

	.org 0x1f0
pages:	.long 1024
idle:	.long 0
	.org 0x1fe
	.word 0xaa55
