/**
 * What a running guest's machine consists of, as its QEMU says: a command says how it began, and devices, processors and memory come
 * and go by the monitor. Its destination starts the command and compares (src/hypervisor/qemu/hardware-difference.ts).
 */
import { z } from 'zod';

const MAX_TYPES = 500;
const MAX_SETTINGS = 300;
const WORD = 0xffff_ffff;
const typeSchema = z.string().min(1).max(255);

/** A device that the command or the monitor has named. */
export const guestDeviceSchema = z.strictObject({
  /** Its user's name for it. */
  id: z.string().min(1).max(255).optional(),
  type: typeSchema,
  /** Its bus, and where on it. */
  at: z.string().max(1000),
  /** Of a network card: its address, and what is at its other end. */
  mac: z
    .string()
    .regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/)
    .optional(),
  netdev: z.string().min(1).max(255).optional(),
  /** Of one that was plugged in: what it is set to, which its twin has to be too. */
  settings: z
    .record(z.string().min(1).max(120), z.string().max(200))
    .refine((settings) => Object.keys(settings).length <= MAX_SETTINGS, 'more settings than a device has')
    .optional(),
});
export type GuestDevice = z.infer<typeof guestDeviceSchema>;

/** A word of what CPUID shows the guest. */
export const cpuidWordSchema = z.strictObject({
  leaf: z.int().min(0).max(WORD),
  index: z.int().min(0).max(WORD),
  register: z.enum(['EAX', 'EBX', 'ECX', 'EDX', 'ESP', 'EBP', 'ESI', 'EDI']),
  bits: z.int().min(0).max(WORD),
});
export type CpuidWord = z.infer<typeof cpuidWordSchema>;

export const guestHardwareSchema = z.strictObject({
  /** Of the QEMU that has it: another release makes its own parts otherwise. */
  qemuVersion: z.string().max(60),
  kvm: z.boolean(),
  devices: z.array(guestDeviceSchema).max(2000),
  /** What the machine has by itself: how many of each type. */
  parts: z
    .record(typeSchema, z.int().min(1).max(100_000))
    .refine((parts) => Object.keys(parts).length <= MAX_TYPES, 'more types of devices than a machine has'),
  /** Network cards that the machine has by itself, as -nic makes them. */
  cards: z.array(guestDeviceSchema).max(64).optional(),
  /** The place of each processor. */
  processors: z.array(z.string().max(255)).max(8192),
  ramBlocks: z.array(z.string().min(1).max(255)).max(2000),
  /** None where the architecture has no such words. */
  features: z.array(cpuidWordSchema).max(200),
  /** Of a physical address; 0 where that is not said. */
  addressBits: z.int().min(0).max(128),
});
export type GuestHardware = z.infer<typeof guestHardwareSchema>;
