/**
 * Measures the path between two hosts and says what a migration would start with. `dwcp link`.
 */
import { uuid4 } from '@temporalio/workflow';
import { z } from 'zod';
import { hostIdSchema } from '../src/model/ids';
import type { SurveyResult } from '../src/model/link-survey';
import { compileMigrationOptions } from '../src/model/options';
import { selectLevelAndStreams } from '../src/model/tiers';
import { onDestination, onSource } from './activity-proxies';
import { Authority } from './authority';
import { failWith, parseArgument, toCoded } from './failures';

const inputSchema = z.strictObject({
  sourceHost: hostIdSchema,
  destinationHost: hostIdSchema,
  streams: z.int().min(1).max(256),
  seconds: z.number().min(2).max(60),
});
export type SurveyInput = z.infer<typeof inputSchema>;

export async function surveyLink(argument: SurveyInput): Promise<SurveyResult> {
  const { sourceHost, destinationHost, streams, seconds } = parseArgument(inputSchema, argument);
  const sessionId = `link-${uuid4()}`;
  const authority = new Authority({ mode: 'link', sourceHost, destinationHost });
  try {
    const grantCall = { activityId: 'grant-link', summary: `${destinationHost}: let ${sourceHost} in` };
    const reachedAt = await onDestination(destinationHost, 'brief', grantCall, authority).grantLink({
      sessionId,
      sourceHost,
    });
    const destination = { ...reachedAt, hostId: destinationHost };
    const surveyCall = {
      activityId: 'survey-link',
      summary: `${sourceHost} → ${destinationHost}: one stream, then ${streams}`,
    };
    const survey = await onSource(sourceHost, 'quick', surveyCall, authority).surveyLink({
      sessionId,
      destination,
      streams,
      seconds,
    });
    const options = compileMigrationOptions({});
    return { ...survey, start: selectLevelAndStreams(survey.link, options, options.enableCompression) };
  } catch (error) {
    throw failWith(toCoded(error));
  }
}
