/**
 * What the bits of CPUID are called, by the names that `-cpu MODEL,-NAME` takes; a bit that is not in the table is called by its place.
 * Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
 */
import type { CpuidWord } from '../../model/guest-hardware';

/** By leaf, index and register; from bit 0 on, `-` for one without a name. */
const NAMES: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  Object.entries({
    '1.0.EDX': `fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov
                pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`,
    '1.0.ECX': `pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm
                - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor`,
    '7.0.EBX': `fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds mpx -
                avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er
                avx512cd sha-ni avx512bw avx512vl`,
    '7.0.ECX': `- avx512vbmi umip pku ospke waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq -
                la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks`,
    '7.0.EDX': `- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize -
                tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities
                core-capability ssbd`,
    '7.1.EAX': `sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs wrmsrns - amx-fp16 - avx-ifma
                - - lam`,
    '7.1.EDX': '- - - - avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - prefetchiti - - - - avx10',
    '7.2.EDX': 'intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no',
    'd.1.EAX': 'xsaveopt xsavec xgetbv1 xsaves xfd',
    '80000001.0.EDX': `fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - - nx - mmxext mmx
                       fxsr fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow`,
    '80000001.0.ECX': `lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp
                       fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb`,
    '80000007.0.EDX': '- - - - - - - - invtsc',
    '80000008.0.EBX': `clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp - stibp-always-on - - - - - -
                       amd-ssbd virt-ssbd amd-no-ssb - amd-psfd`,
    '8000000a.0.EDX': `npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - pause-filter - pfthreshold avic -
                       v-vmsave-vmload vgif - - - - - - - - vnmi - - svme-addr-chk`,
  }).map(([word, names]) => [word, names.trim().split(/\s+/)]),
);

/** The flags that the one has and the other has not. */
export function flagsOf(some: readonly CpuidWord[], others: readonly CpuidWord[]): string[] {
  const known = new Map(others.map((word) => [keyOf(word), word.bits]));
  const flags = some.flatMap((word) => {
    const key = keyOf(word);
    // Bits of a 32 bit word: the operators of the language take its highest for a sign.
    const more = BigInt(word.bits) & ~BigInt(known.get(key) ?? 0);
    return Array.from({ length: 32 }, (_, bit) => bit)
      .filter((bit) => (more >> BigInt(bit)) & 1n)
      .map((bit) => nameOf(key, bit));
  });
  return [...new Set(flags)];
}

function keyOf({ leaf, index, register }: CpuidWord): string {
  return `${leaf.toString(16)}.${index}.${register}`;
}

function nameOf(key: string, bit: number): string {
  const name = NAMES[key]?.[bit];
  return name === undefined || name === '-' ? `CPUID ${key} bit ${bit}` : name;
}
