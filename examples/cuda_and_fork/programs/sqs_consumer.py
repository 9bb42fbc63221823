"""No server at all: a loop that takes jobs from an SQS queue and puts the answers into another.

Nothing is started that could fork; whoever asks talks to the queue.
"""

import json
import os

import boto3
import picture_model


def serve(queues, jobs, answers):
    while True:
        taken = queues.receive_message(QueueUrl=jobs, WaitTimeSeconds=5, MaxNumberOfMessages=1)
        for message in taken.get("Messages", []):
            try:
                answer = picture_model.draw(json.loads(message["Body"])["prompt"])
            except Exception as error:
                answer = {"error": str(error)}
            queues.send_message(QueueUrl=answers, MessageBody=json.dumps(answer))
            queues.delete_message(QueueUrl=jobs, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    picture_model.load()
    client = boto3.client("sqs", endpoint_url=os.environ["SQS_URL"], region_name="us-east-1")
    serve(client, os.environ["JOBS_QUEUE"], os.environ["ANSWERS_QUEUE"])
